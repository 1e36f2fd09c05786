# <verbatim>
requirements = ["numpy", 'pandas>1, <3', "scikit-learn==1.2.0"]
# </verbatim>

function = project.new_function("f", "python", code="def f(): return 1", handler="f",
                                python_version=VERSION, requirements=requirements)
show(requirements=project.get_function("f").spec.requirements)

# <verbatim>
instructions = ["apt-get install -y git"]
# </verbatim>

run = function.run("build", instructions=instructions)
show(instructions=project.get_run(run.id).spec.instructions)
