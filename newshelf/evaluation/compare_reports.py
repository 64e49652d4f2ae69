"""Paired comparison of two evaluation reports, from each case's metrics in ``cases.npz``."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from rich.console import Console

from newshelf.errors import SetupError
from newshelf.evaluation.significance import PairedTest, paired_test
from newshelf.evaluation.types import FloatArray, IntArray, Metrics, Split
from newshelf.files import read_json, write_aside
from newshelf.report.page import ReportTable, print_table

CASES_FILE = "cases.npz"
FORMAT = 2
"""Of ``report.json`` and ``cases.npz``, which belong together."""


@dataclass(frozen=True, eq=False)
class CaseMetrics:
    """Each ranker's metrics per case of one split."""

    groups: IntArray
    metrics: Mapping[str, Mapping[str, FloatArray]]
    """Ranker → metric → (cases,)."""


def case_digest(split: Split) -> str:
    """Return a digest of all histories, answers and ranked items."""
    digest = hashlib.sha256()
    digest.update(np.packbits(split.candidates).tobytes())
    for case in split.cases:
        for part in (case.history, case.relevant):
            digest.update(np.append(part, -1).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def write_cases(rows: Sequence[Metrics], path: Path) -> None:
    """Write every metric of every ranker and split per case, atomically."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for row in rows:
        arrays[f"{row.split}/groups"] = row.groups
        for metric, values in row.per_case.items():
            arrays[f"{row.split}/{row.ranker}/{metric}"] = values
    with write_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_cases(path: Path) -> dict[str, CaseMetrics]:
    """Read the metrics per case of each split; raise OSError or ValueError if it cannot be read."""
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
    return {split: CaseMetrics(groups[split], metrics.get(split, {})) for split in groups}


@dataclass(frozen=True)
class PairedSplit:
    """Tests of the models of two reports on one split."""

    split: str
    ours: str
    """Name of the ranker and version of the model."""
    theirs: str
    tests: Mapping[str, PairedTest]
    """By metric, at the first cut-off."""


def compare_reports(ours: Path, theirs: Path) -> list[PairedSplit]:
    """Test the models of two reports (folders or their JSON) on all splits with the same cases."""
    mine, other = _read(ours), _read(theirs)
    found = []
    by_name = {split["name"]: split for split in other[0]["splits"]}
    for split in mine[0]["splits"]:
        match = by_name.get(split["name"])
        if match is None or match["questions"] != split["questions"]:
            continue
        if split["model"] is None or match["model"] is None:
            raise SetupError(f"split {split['name']}: one of the reports was made without a model")
        found.append(_paired(mine, other, split, match))
    if not found:
        raise SetupError(
            f"{ours} and {theirs} have no split with the same cases: two models can only be "
            "paired on the same catalogue, seed and [evaluation] settings"
        )
    return found


_Report = tuple[dict[str, Any], dict[str, CaseMetrics]]


def _read(given: Path) -> _Report:
    folder = given.parent if given.name == "report.json" else given
    try:
        report = read_json(folder / "report.json")
        cases = read_cases(folder / CASES_FILE)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise SetupError(
            f"{folder} holds no report to compare with ({error}): it needs report.json and "
            f"{CASES_FILE}, as ./run evaluate leaves them"
        ) from error
    if report.get("format") != FORMAT:
        raise SetupError(f"{folder}/report.json is of another format: run ./run evaluate again")
    return report, cases


def _paired(
    mine: _Report, other: _Report, split: Mapping[str, Any], match: Mapping[str, Any]
) -> PairedSplit:
    name, k = split["name"], split["k"][0]
    (ours, cases), (theirs, other_cases) = mine, other
    first = cases[name].metrics[split["model"]]
    second = other_cases[name].metrics[match["model"]]
    metrics = [f"NDCG@{k}", f"Recall@{k}", f"HitRate@{k}", "MRR"]
    return PairedSplit(
        split=name,
        ours=f"{split['model']} {ours['model_version']}",
        theirs=f"{match['model']} {theirs['model_version']}",
        tests={
            metric: paired_test(first[metric], second[metric], cases[name].groups)
            for metric in metrics
            if metric in first and metric in second
        },
    )


def print_pairs(pairs: Sequence[PairedSplit], console: Console) -> None:
    """Print a table per split: both models, their difference with its interval, p and verdict."""
    header = ("metric", "this", "other", "difference", "95 %", "p", "this is")
    for pair in pairs:
        rows = [
            (
                metric,
                f"{test.first:.4f}",
                f"{test.second:.4f}",
                f"{test.difference:+.4f}",
                "–" if test.interval is None else "{:+.4f} to {:+.4f}".format(*test.interval),
                f"{test.p_value:.4f}",
                test.verdict,
            )
            for metric, test in pair.tests.items()
        ]
        print_table(ReportTable(pair.split, header, rows, text_columns=[6]), console)
        groups = next(iter(pair.tests.values())).groups
        console.print(
            f"this: {pair.ours}; other: {pair.theirs}; {groups} independent groups of cases",
            style="dim",
            markup=False,
        )
        console.print()
