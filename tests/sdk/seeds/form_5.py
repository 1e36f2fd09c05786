dataitem = log_table()
function = new_function("form5", "func5")
run = function.run("job", wait=True, inputs={"di": dataitem.key}, parameters={"param1": "text"})
show(state=run.status.state, results=run.results())
