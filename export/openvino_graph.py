"""An ONNX file as OpenVINO's own two: the graph, and its weights to be mapped."""

from pathlib import Path

import openvino

from newshelf.serving.runtimes.openvino import shared_core

__all__ = ["write_openvino"]


def write_openvino(source: Path, path: Path) -> None:
    """Convert ``source``, in the same arithmetic.

    OpenVINO copies the weights of an ONNX file into each process; those of its own format it
    maps, so that all processes of a machine share them.

    Args:
        source: the ``.onnx`` file.
        path: of the ``.xml`` file; the weights go beside it, into one of the same name that
            ends in ``.bin``.
    """
    # New files: whoever has the old ones mapped keeps them.
    for old in (path, path.with_suffix(".bin")):
        old.unlink(missing_ok=True)
    openvino.save_model(shared_core().read_model(str(source)), path, compress_to_fp16=False)
