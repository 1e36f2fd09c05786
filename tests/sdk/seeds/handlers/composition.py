from digitalhub.entities.dataitem._base.entity import Dataitem

# <verbatim>
# Define your function and declare di argument as Dataitem
def func(di: Dataitem):
   # do something with di
# </verbatim>
   return di.as_df()["a"].sum()
