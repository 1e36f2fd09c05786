# <verbatim>
from digitalhub_runtime_python import handler
# </verbatim>

# <verbatim>
# 2. Decorated function that returns a string

# If you decorate your function and return something, you need to map the outputs
# in the decorator
@handler(outputs=["result"])
def func2():
   return "hello world"
# </verbatim>
