sdk_dataitem = log_table()
sdk_function = new_function("outputs", "func")

# <verbatim>
sdk_function.run(inputs={"di": sdk_dataitem.key},
                 parameters={"param1": "some value"})
# </verbatim>

run = last_run(sdk_function)
show(string=run.result("string"), of_a_class=run.output("data").ENTITY_TYPE)

sdk_function = new_function("outputs", "func_with_a_frame")
sdk_function.run(inputs={"di": sdk_dataitem.key}, parameters={"param1": "some value"})
run = last_run(sdk_function)
frame = run.output("data")
show(of_a_frame=[frame.ENTITY_TYPE, frame.kind], values=frame.as_df()["a"].tolist())
