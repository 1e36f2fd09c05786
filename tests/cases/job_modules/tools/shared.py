NAME = "relative in a folder without __init__.py"
