"""Requests, encoding, runtimes, index, ranking and predictors of a worker, without TorchServe.

Schemas and settings can be imported without torch.
"""
