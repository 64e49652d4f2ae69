"""Runtimes of exported graphs: TorchScript, ONNX Runtime and OpenVINO.

On the CPU, ONNX Runtime and OpenVINO do not load torch.
"""
