function = new_function("form1", "func1")
run = function.run("job", wait=True)
show(state=run.status.state, results=run.results(), outputs=run.outputs(), first=run.result("output_0"))
