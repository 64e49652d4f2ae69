"""An archive's ``model-config.yaml`` as parsed YAML, and the decisions of TorchServe's launcher.

Imports no pydantic: the launcher only waits, and has to stay small.
"""

import glob
import os
from collections.abc import Mapping
from typing import Any

import yaml

MODEL_CONFIG = "model-config.yaml"
_GPUS = "/dev/nvidia[0-9]*"
"""TorchServe gives a GPU to the workers if there is one, unless the model is for the CPU."""


def read_model_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the parsed ``model-config.yaml`` of an unpacked archive."""
    with open(os.path.join(directory, MODEL_CONFIG), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        return yaml.safe_load(file) or {}


def worker_threads(config: Mapping[str, Any], name: str) -> int:
    """Return ``threads`` or ``decode_threads`` of one worker; 0 divides this machine's cores."""
    threads: int = (config.get("serving") or {}).get(name) or 0
    cores = len(os.sched_getaffinity(0))
    return threads or max(1, cores // (config.get("maxWorkers") or 1))


def preloads(config: Mapping[str, Any]) -> bool:
    """Return whether the workers, with one thread each, are forked from one with the model."""
    wanted = bool((config.get("serving") or {}).get("preload", True))
    on_cpu = config.get("deviceType") == "cpu" or not glob.glob(_GPUS)  # noqa: PTH207
    return wanted and on_cpu and worker_threads(config, "threads") == 1
