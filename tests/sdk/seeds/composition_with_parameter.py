class sdk:
    new_dataitem = staticmethod(lambda *_: log_table())


sdk_function = new_function("composition_with_parameter", "func")

# <verbatim>
# Create a dataitem
sdk_dataitem = sdk.new_dataitem(...)

# Reference the di argument as key and the dataitem key as value
sdk_function.run(inputs={"di": sdk_dataitem.key},
                 parameters={"param1": "some value"})
# </verbatim>

run = last_run(sdk_function)
show(state=run.status.state, results=run.results())
