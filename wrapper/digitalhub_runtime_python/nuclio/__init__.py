"""Nuclio: the wrapper that its processor starts, our stand-in for the processor, deployment manifests."""
