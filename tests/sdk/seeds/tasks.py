from pathlib import Path

Path("main.py").write_text("def function(dataitem=None):\n    return dataitem.name if dataitem else ''\n")
function = project.new_function("python-function", "python", code_src="main.py", handler="function",
                                python_version=VERSION)
dataitem = log_table()

# <verbatim>
# Job execution
run = function.run(
    action="job",
    inputs={
        "dataitem": dataitem.key
    }
)
# </verbatim>

run.wait()
show(state=run.status.state, results=run.results())

if MODE == "remote":
    # <verbatim>
    # Build image
    run = function.run(
        action="build",
        instructions=["apt-get install -y git"]
    )
    # </verbatim>
    show(instructions=project.get_run(run.id).spec.instructions)

    # <verbatim>
    # Serve as service
    run = function.run(
        action="serve",
        replicas=2,
        service_type="NodePort"
    )
    # </verbatim>
    run.refresh()
    run.stop()
    show(replicas=run.spec.replicas, service_type=run.spec.service_type)
