"""Import paths that the documentation names."""
