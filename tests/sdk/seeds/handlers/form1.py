# <verbatim>
from digitalhub_runtime_python import handler

# 1. Simple function that returns a string

def func1():
   return "hello world"
# </verbatim>
