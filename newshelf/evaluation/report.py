"""The evaluation of one catalogue: what it holds, and its files."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from newshelf.evaluation.cases import CASES_FILE, FORMAT, keep_cases
from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.few_shot import FewShot
from newshelf.evaluation.figures import draw_bars
from newshelf.evaluation.funnel import Funnel
from newshelf.evaluation.html import to_html
from newshelf.evaluation.markdown import to_markdown
from newshelf.evaluation.page import Page, Picture, Section
from newshelf.evaluation.tables import few_shot_table, funnel_table, split_tables, verdict
from newshelf.evaluation.types import Metrics
from newshelf.files import write_aside, write_json

__all__ = ["Report", "write_report"]

_LIBRARIES = ("numpy", "scipy", "pandas", "scikit-learn")
_BARS = Picture("ndcg.png", "NDCG per ranker and split, with 95 % intervals")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **libraries}


@dataclass(frozen=True)
class Report:
    """All splits of one catalogue, and what was learned of the model beside them."""

    catalog: str
    items: int
    seed: int
    comparisons: Sequence[Comparison]
    model_version: str | None = None
    funnel: Funnel | None = None
    shots: FewShot | None = None
    pictures: Sequence[Picture] = ()
    """Already drawn, in the report's folder."""
    notes: Sequence[str] = ()
    """What could not be shown, and why."""
    created: str = field(default_factory=_now)
    """UTC, ISO 8601."""
    versions: dict[str, str] = field(default_factory=_versions)

    def to_json(self) -> dict[str, Any]:
        """What ``report.json`` holds."""
        return {
            "format": FORMAT,
            "catalog": self.catalog,
            "items": self.items,
            "seed": self.seed,
            "model_version": self.model_version,
            "created": self.created,
            "versions": self.versions,
            "splits": [_split_json(comparison) for comparison in self.comparisons],
            "funnel": None if self.funnel is None else asdict(self.funnel),
            "few_shot": None if self.shots is None else _shots_json(self.shots),
            "notes": list(self.notes),
        }

    def page(self) -> Page:
        """What ``report.md`` and ``report.html`` show."""
        sections = [
            Section(
                comparison.split,
                comparison.description,
                tables=split_tables(comparison),
                verdict=verdict(comparison),
            )
            for comparison in self.comparisons
        ]
        if self.funnel is not None:
            sections.append(Section("Clicks and purchases", tables=[funnel_table(self.funnel)]))
        if self.shots is not None:
            said = (
                f"A linear probe on the labels of {len(self.shots.classes)} product types, "
                f"tested on {self.shots.tested} other products."
            )
            sections.append(Section("Few labels", said, tables=[few_shot_table(self.shots)]))
        if self.pictures or self.notes:
            said = " ".join(self.notes)
            sections.append(Section("What the model has learned", said, pictures=self.pictures))
        libraries = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        return Page(
            title=f"Evaluation of {self.catalog}",
            facts=(
                self.created,
                f"model {self.model_version or 'none'}",
                f"{self.items} items",
                f"seed {self.seed}",
                libraries,
            ),
            pictures=(_BARS,),
            sections=sections,
        )


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json``, ``.md`` and ``.html``, ``cases.npz`` and ``ndcg.png``.

    Each is written aside and renamed. The report's pictures must be in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(folder / _BARS.file) as aside:
        draw_bars(report.comparisons, aside, title=report.catalog)
    keep_cases([row for c in report.comparisons for row in c.rows], folder / CASES_FILE)
    page = report.page()
    for name, text in (("report.md", to_markdown(page)), ("report.html", to_html(page, folder))):
        with write_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    write_json(folder / "report.json", report.to_json())


def _split_json(comparison: Comparison) -> dict[str, Any]:
    interval = comparison.ratio_interval()
    test = comparison.test()
    return {
        "name": comparison.split,
        "description": comparison.description,
        "questions": comparison.questions,
        "items_ranked": comparison.items,
        "cases": comparison.cases,
        "k": list(comparison.k),
        "best_baseline": comparison.best_baseline.ranker,
        "model": comparison.model.ranker if comparison.model else None,
        "ratio": comparison.ratio,
        "verdict": verdict(comparison),
        "ratio_interval_95": list(interval) if interval else None,
        "p_value": test.p_value if test else None,
        "rankers": [_ranker_json(row) for row in comparison.rows],
    }


def _ranker_json(row: Metrics) -> dict[str, Any]:
    by_cutoff = ("recall", "ndcg", "hit_rate", "coverage", "novelty", "popularity", "head_share",
                 "gini")  # fmt: skip
    return {
        "name": row.ranker,
        "mrr": row.mrr,
        **{name: {str(k): v for k, v in getattr(row, name).items()} for name in by_cutoff},
        "intervals_95": {name: list(ends) for name, ends in row.intervals.items()},
    }


def _shots_json(shots: FewShot) -> dict[str, Any]:
    return {
        "shots": list(shots.shots),
        "classes": list(shots.classes),
        "tested": shots.tested,
        "accuracy": {name: values.tolist() for name, values in shots.accuracy.items()},
        "macro_f1": {name: values.tolist() for name, values in shots.macro_f1.items()},
        "confusion": {name: last.confusion.tolist() for name, last in shots.last.items()},
    }
