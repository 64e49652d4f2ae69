"""Decoding, preprocessing, runtimes, index and predictors; knows nothing of TorchServe."""
