"""The HTTP API that a shop's front end calls, in front of TorchServe."""
