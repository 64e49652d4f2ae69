"""Processes of a running server: TorchServe, the gateway, the controller of rollouts."""
