"""One thin TorchServe adapter per model."""
