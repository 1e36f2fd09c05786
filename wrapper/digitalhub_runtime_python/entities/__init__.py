"""Import paths that the documentation names; the classes live in digitalhub_runtime_python.sdk."""
