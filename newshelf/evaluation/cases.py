"""What each case of a report was worth: ``cases.npz``, for paired tests later."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from newshelf.evaluation.types import FloatArray, IntArray, Metrics, Split
from newshelf.files import write_aside

__all__ = ["CASES_FILE", "FORMAT", "KeptCases", "case_digest", "keep_cases", "read_cases"]

CASES_FILE = "cases.npz"
FORMAT = 2
"""Of ``report.json`` and this file, which belong together."""


@dataclass(frozen=True, eq=False)
class KeptCases:
    """One split: each ranker's metrics per case."""

    groups: IntArray
    metrics: Mapping[str, Mapping[str, FloatArray]]
    """Ranker → metric → (cases,)."""


def case_digest(split: Split) -> str:
    """Equal for equal questions: the same histories, answers and ranked items."""
    digest = hashlib.sha256()
    digest.update(np.packbits(split.candidates).tobytes())
    for case in split.cases:
        for part in (case.history, case.relevant):
            digest.update(np.append(part, -1).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def keep_cases(rows: Sequence[Metrics], path: Path) -> None:
    """Write every metric of every ranker and split per case, aside and renamed."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for row in rows:
        arrays[f"{row.split}/groups"] = row.groups
        for metric, values in row.per_case.items():
            arrays[f"{row.split}/{row.ranker}/{metric}"] = values
    with write_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_cases(path: Path) -> dict[str, KeptCases]:
    """By split.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    groups: dict[str, IntArray] = {}
    metrics: dict[str, dict[str, dict[str, FloatArray]]] = {}
    with np.load(path, allow_pickle=False) as kept:
        for name in kept.files:
            split, _, rest = name.partition("/")
            ranker, _, metric = rest.rpartition("/")
            if ranker:
                metrics.setdefault(split, {}).setdefault(ranker, {})[metric] = kept[name]
            else:
                groups[split] = kept[name]
    return {split: KeptCases(groups[split], metrics.get(split, {})) for split in groups}
