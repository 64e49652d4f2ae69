"""Points: the settings that are tuned, and which of their values are tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from pydantic import ValidationError

from loadtest.tuning.load import ModelName
from newshelf.config import ArchiveSettings, Settings
from newshelf.errors import SettingsError
from newshelf.files import problems, read_json


@dataclass(frozen=True, order=True)
class Arithmetic:
    """A runtime and the precision that it computes in."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True, order=True)
class Computing:
    """Number of workers, and threads and arithmetic of each."""

    workers: int
    threads: int
    arithmetic: Arithmetic

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads} {self.arithmetic}"


@dataclass(frozen=True, order=True)
class Point:
    """A set of settings to measure."""

    computing: Computing
    batch_size: int
    delay_ms: int

    def __str__(self) -> str:
        return f"{self.computing}, batch {self.batch_size}, {self.delay_ms} ms"


@dataclass(frozen=True)
class SearchSpace:
    """Points to try: every computing with every batch size and delay."""

    computing: tuple[Computing, ...]
    batch_sizes: tuple[int, ...]
    """Increasing."""
    delays_ms: tuple[int, ...]
    """Increasing."""

    def __post_init__(self) -> None:
        if not (self.computing and self.batch_sizes and self.delays_ms):
            raise SettingsError("nothing to tune: each of the lists needs a value")

    def middle(self, computing: Computing) -> Point:
        """Return the point that represents ``computing`` when computings are compared."""
        batch_sizes, delays = self.batch_sizes, self.delays_ms
        return Point(computing, batch_sizes[len(batch_sizes) // 2], delays[(len(delays) - 1) // 2])

    def size(self) -> int:
        """Return the number of points."""
        return len(self.computing) * len(self.batch_sizes) * len(self.delays_ms)


def layouts(
    cores: int, workers: Sequence[int] | None = None, threads: Sequence[int] | None = None
) -> list[tuple[int, int]]:
    """Return pairs of workers and threads per worker, few workers first.

    By default 1, 2, 4, … workers that share the cores, and one worker more than cores, which
    computes while another reads its next batch.
    """
    if workers is None:
        workers = [2**power for power in range(cores.bit_length()) if 2**power < cores]
        workers += [cores, cores + 1]
    return sorted({(w, t) for w in workers for t in (threads if threads else [max(1, cores // w)])})


def with_point(settings: Settings, model: ModelName, point: Point) -> Settings:
    """Return ``settings`` that serve ``model`` as ``point`` says."""
    computing = point.computing
    archive = settings.archive.model_dump(exclude_unset=True)
    archive |= {
        "runtime": computing.arithmetic.runtime,
        "precision": computing.arithmetic.precision,
    }
    archive[model] = archive.get(model, {}) | {
        "batch_size": point.batch_size,
        "max_batch_delay_ms": point.delay_ms,
        "workers": computing.workers,
        "threads": computing.threads,
    }
    try:
        section = ArchiveSettings.model_validate(archive)
    except ValidationError as error:
        raise SettingsError(f"{point} cannot be archived: {problems(error)}") from error
    return settings.model_copy(update={"archive": section})


_REPORT = "precision.json"
_FULL = "fp32"
_GPU_TOOL = "nvidia-smi"
"""Part of the driver of a GPU."""
_LIBRARIES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "torchscript": "torch"}


def candidates(export: Path) -> list[Arithmetic]:
    """Return what passed the gate and is installed; without a gate report, only float32."""
    path = export / _REPORT
    if path.is_file():
        found = _passed(path)
    else:
        found = [Arithmetic(runtime, _FULL) for runtime in _LIBRARIES]
    return [one for one in found if find_spec(_LIBRARIES[one.runtime]) is not None]


def select(
    found: Sequence[Arithmetic], runtimes: Sequence[str] | None, precisions: Sequence[str] | None
) -> list[Arithmetic]:
    """Return those of ``found`` with the given runtimes and precisions; None allows all."""
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
