"""Start-up code of a worker's Python, at an archive's root.

It lets a worker do without what serving never uses, and be forked from a process that has the
model loaded (``handlers.launcher``).

TorchServe's worker imports torch at its start, for answers that are tensors. Ours are bytes,
and on a CPU ONNX Runtime and OpenVINO do the work: with this file, torch is only loaded when
something of it is used, which a GPU or the TorchScript runtime does. A worker on a CPU thus
starts 2 s sooner and holds some 260 MB of memory less that no other process shares. Where torch
is not installed, the import succeeds as well, and only its use raises ModuleNotFoundError.

OpenVINO's package imports its converter of models, and goes without where that cannot be
imported: 7 MB per worker.

``site`` imports a module of this name before any other code runs, from the first folder of
``sys.path`` that has one; TorchServe puts the unpacked archive there.
"""

import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class _NoTorch(ModuleType):
    """torch where it is not installed."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


class _NoTorchLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _NoTorch(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it has no code."""


class _LazyTorch:
    """Finds torch once, as a module that loads when an attribute of it is read."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return ModuleSpec(fullname, _NoTorchLoader())
        spec.loader = LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _LazyTorch())
# None: Python says that there is no such module.
sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]


_WORKER = "model_service_worker.py"


def _worker_command() -> Sequence[str]:
    """TorchServe's worker and its arguments; empty in any other process."""
    words = sys.orig_argv
    at = next((at for at, word in enumerate(words) if os.path.basename(word) == _WORKER), None)  # noqa: PTH119
    return [] if at is None else words[at:]


if command := _worker_command():
    from handlers.launcher import launch

    launch(os.path.dirname(os.path.abspath(__file__)), command)  # noqa: PTH100, PTH120
