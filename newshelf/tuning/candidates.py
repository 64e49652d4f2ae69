"""Which runtimes and precisions may be tried: those that passed the export's gate."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from newshelf.errors import SettingsError
from newshelf.files import read_json
from newshelf.tuning.points import Arithmetic

__all__ = ["candidates", "chosen"]

_REPORT = "precision.json"
_FULL = "fp32"
_GPU_TOOL = "nvidia-smi"
"""Comes with the driver of a GPU."""
_LIBRARIES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torchscript": "torch"}


def candidates(export: Path) -> list[Arithmetic]:
    """What passed the gate and is installed; without a report on it, float32 alone.

    Args:
        export: the folder of the export.

    Raises:
        SettingsError: the report is not one of this version.
    """
    path = export / _REPORT
    if path.is_file():
        found = _passed(path)
    else:
        found = [Arithmetic(runtime, _FULL) for runtime in _LIBRARIES]
    return [one for one in found if find_spec(_LIBRARIES[one.runtime]) is not None]


def chosen(
    found: Sequence[Arithmetic], runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> list[Arithmetic]:
    """Those of ``found`` that were asked for; None asks for all.

    Raises:
        SettingsError: none is left.
    """
    kept = [
        one
        for one in found
        if (runtimes is None or one.runtime in runtimes)
        and (precisions is None or one.precision in precisions)
    ]
    if not kept:
        raise SettingsError(
            "no runtime and precision is left to tune; what was exported, passed the gate and "
            f"is installed: {', '.join(map(str, found)) or 'nothing'}"
        )
    return kept


def _passed(path: Path) -> list[Arithmetic]:
    try:
        report = read_json(path)
        measured = [*report["candidates"], *(report["on_a_gpu"] if which(_GPU_TOOL) else ())]
        return [
            Arithmetic(one["runtime"], one["precision"])
            for one in measured
            if one["passed"] and one["runtime"] in _LIBRARIES
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read ({error!r}): export again") from error
