NAME = "found on PYTHONPATH"
