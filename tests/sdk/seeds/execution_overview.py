from pathlib import Path

Path("handler.py").write_text("def main(data, threshold):\n    return data.name, threshold\n")
dataitem = log_table()
dh = project  # the example leaves out `project=`, without which the SDK's new_function() fails

# <verbatim>
# Create function with function parameters
function = dh.new_function(
    name="my-function",
    kind="python",
    code_src="handler.py",
    handler="main",
    python_version="PYTHON3_10"
)

# Execute with task and run parameters
run = function.run(
    action="job",  # Task parameter
    inputs={"data": dataitem.key},  # Run parameter
    parameters={"threshold": 0.5}  # Run parameter
)
# </verbatim>

run.wait()
show(state=run.status.state, results=run.results())
