import pandas as pd
from digitalhub.entities.dataitem._base.entity import Dataitem

# <verbatim>
from digitalhub_runtime_python import handler

@handler(outputs=["data", "string"])
def func(di: Dataitem, param1: str):
   # do something with di
   return pd.DataFrame, "some value"
# </verbatim>


# What the text below the example says of it: a frame, not the class of frames.
@handler(outputs=["data", "string"])
def func_with_a_frame(di: Dataitem, param1: str):
   return pd.DataFrame({"a": di.as_df()["a"] * 2}), "some value"
