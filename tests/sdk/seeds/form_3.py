function = new_function("form3", "func3")
run = run_to_its_end(function)
show(state=run.status.state, message=run.status.message, error=run.status.error)

function = new_function("form3", "func3_as_the_sdk_has_it")
run = function.run("job", wait=True)
artifact = project.get_artifact("example")
show(
    results=run.results(),
    produced_by=[r for r in artifact.metadata.relationships if r["type"] == "produced_by"],
    run_key=f"{run.key}:{run.id}",
)
