function = new_function("form6", "main", init_function="init")
run = function.run("job", wait=True, init_parameters={"param1": 1, "param2": 2})
show(state=run.status.state, results=run.results())
