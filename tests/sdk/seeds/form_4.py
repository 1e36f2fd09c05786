function = new_function("form4", "func4")
run = function.run("job", wait=True)
show(state=run.status.state, results=run.results(), logs=log_text(run))
