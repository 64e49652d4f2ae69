"""TorchServe adapters, one per model, and the start of their workers."""
