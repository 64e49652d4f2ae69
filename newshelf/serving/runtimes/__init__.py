"""Runs an exported graph by TorchScript, ONNX Runtime or OpenVINO; the caller cannot tell which.

``open_runtime`` imports the library of the runtime that it opens and no other: a worker on
the CPU, with ONNX Runtime or OpenVINO, loads no torch.
"""
