"""Starting, watching and stopping TorchServe."""
