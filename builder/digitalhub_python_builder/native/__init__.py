"""Images without a daemon: layers and manifests made here, from a base whose files are read and never run.

plan → `base.resolve` → `python.locate` → `packages.layers` → `image.assemble` → `push` or `output`.
"""
