from pathlib import Path

Path("main.py").write_text("def function(dataitem=None):\n    return 1\n")
dh.get_or_create_project("my-project")

# <verbatim>
import digitalhub as dh

project = dh.get_or_create_project("my_project")

# From project
function = project.new_function(
    name="python-function",
    kind="python",
    code_src="main.py",
    handler="function",
    python_version="PYTHON3_10"
)

# Or from sdk
function = dh.new_function(
    project="my-project",
    name="python-function",
    kind="python",
    code_src="main.py",
    handler="function",
    python_version="PYTHON3_10"
)
# </verbatim>

first = function.run("job", wait=True)

# <verbatim>
# From project ...

function = project.new_function(name="python-function",
                                kind="python",
                                code_src="main.py",
                                handler="function",
                                python_version="PYTHON3_9")

# .. or from sdk

function = dh.new_function(project="my-project",
                           name="python-function",
                           kind="python",
                           code_src="main.py",
                           handler="function",
                           python_version="PYTHON3_9")
# </verbatim>

show(
    state=first.status.state,
    results=first.results(),
    source=function.spec.source,
    python_version=function.spec.python_version,
    versions=len(dh.get_function_versions("python-function", project="my-project")) >= 2,
)
