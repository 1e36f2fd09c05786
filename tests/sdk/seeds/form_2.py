function = new_function("form2", "func2")
run = function.run("job", wait=True)
show(state=run.status.state, results=run.results(), outputs=run.outputs(), output=run.output("result"))
