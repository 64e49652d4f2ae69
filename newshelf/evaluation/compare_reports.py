"""Two kept reports of the same questions: which model is the better one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from newshelf.errors import SetupError
from newshelf.evaluation.cases import CASES_FILE, FORMAT, KeptCases, read_cases
from newshelf.evaluation.paired import PairedTest, paired_test
from newshelf.files import read_json

__all__ = ["PairedSplit", "compare_reports"]


@dataclass(frozen=True)
class PairedSplit:
    """The models of two reports on one split."""

    split: str
    ours: str
    """The ranker's name and the model's version, as is ``theirs``."""
    theirs: str
    tests: Mapping[str, PairedTest]
    """By metric, at the first cut-off."""


def compare_reports(ours: Path, theirs: Path) -> list[PairedSplit]:
    """Paired tests of the models of two reports, split by split.

    Args:
        ours: a report's folder.
        theirs: another's, or its ``report.json``.

    Raises:
        SetupError: a report is missing or of another format, has no model, or they share
            no split in which they were asked the same.
    """
    mine, other = _read(ours), _read(theirs)
    found = []
    by_name = {split["name"]: split for split in other.splits}
    for split in mine.splits:
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


@dataclass(frozen=True, eq=False)
class _Kept:
    version: str
    splits: list[dict[str, Any]]
    cases: Mapping[str, KeptCases]


def _read(given: Path) -> _Kept:
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
        raise SetupError(f"{folder}/report.json is of another format: run ./run evaluate anew")
    return _Kept(str(report["model_version"]), report["splits"], cases)


def _paired(
    mine: _Kept, other: _Kept, split: Mapping[str, Any], match: Mapping[str, Any]
) -> PairedSplit:
    name, k = split["name"], split["k"][0]
    first = mine.cases[name].metrics[split["model"]]
    second = other.cases[name].metrics[match["model"]]
    metrics = [f"NDCG@{k}", f"Recall@{k}", f"HitRate@{k}", "MRR"]
    return PairedSplit(
        split=name,
        ours=f"{split['model']} {mine.version}",
        theirs=f"{match['model']} {other.version}",
        tests={
            metric: paired_test(first[metric], second[metric], mine.cases[name].groups)
            for metric in metrics
            if metric in first and metric in second
        },
    )
