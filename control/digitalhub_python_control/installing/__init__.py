"""The control plane in a cluster: its image, and the objects that run it."""
