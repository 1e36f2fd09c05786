from digitalhub.entities.dataitem._base.entity import Dataitem

# <verbatim>
# 5. Function with mixed input arguments
def func5(di: Dataitem, param1: str):
   # di refers to a Dataitem object, so it must be mapped into runs inputs
   # param1 is a string, it must be mapped into runs parameters
# </verbatim>
   return isinstance(di, Dataitem), di.name, param1
