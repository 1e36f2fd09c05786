"""The embedded control plane: DigitalHub Core's REST API, a store, a reconciler, run engines."""
