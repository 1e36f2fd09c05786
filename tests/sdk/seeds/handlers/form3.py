# <verbatim>
# 3. Function with project argument
def func3(project):
   # allowed use of project variable
   project.log_artifact(name="example",
                        kind="artifact",
                        source_path="/path/to/file")

   # not allowed use of project variable
   project.some_method_not_from_sdk() # Probably there will be an error
# </verbatim>


# The SDK calls the parameter `source`, in 0.14 and in 0.15.
def func3_as_the_sdk_has_it(project):
   import pathlib
   import tempfile

   file = pathlib.Path(tempfile.mkdtemp(), "example.txt")
   file.write_text("an example")
   project.log_artifact(name="example",
                        kind="artifact",
                        source=str(file))
   return project.name
