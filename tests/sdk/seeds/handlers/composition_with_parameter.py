from digitalhub.entities.dataitem._base.entity import Dataitem

# <verbatim>
# Define your function and declare di argument as Dataitem
def func(di: Dataitem, param1: str):
   # do something with di
# </verbatim>
   return f"{param1}: {di.as_df()['a'].sum()}"
