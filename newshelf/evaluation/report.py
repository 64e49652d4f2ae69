"""The evaluation of one catalogue: Markdown, JSON and a plot."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.plot import draw
from newshelf.evaluation.types import Metrics
from newshelf.files import write_aside, write_json

__all__ = ["Report", "write_report"]

_LIBRARIES = ("numpy", "scipy", "pandas")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **libraries}


@dataclass(frozen=True)
class Report:
    """All splits of one catalogue."""

    catalog: str
    items: int
    seed: int
    comparisons: Sequence[Comparison]
    model_version: str | None = None
    created: str = field(default_factory=_now)
    """UTC, ISO 8601."""
    versions: dict[str, str] = field(default_factory=_versions)

    def to_json(self) -> dict[str, Any]:
        """What ``report.json`` holds."""
        return {
            "format": 1,
            "catalog": self.catalog,
            "items": self.items,
            "seed": self.seed,
            "model_version": self.model_version,
            "created": self.created,
            "versions": self.versions,
            "splits": [_split_json(comparison) for comparison in self.comparisons],
        }

    def to_markdown(self) -> str:
        """What ``report.md`` holds."""
        libraries = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        lines = [
            f"# Evaluation of {self.catalog}",
            "",
            f"{self.created} · model {self.model_version or 'none'} · {self.items} items · "
            f"seed {self.seed} · {libraries}",
            "",
            "![NDCG per ranker and split](ndcg.png)",
        ]
        for comparison in self.comparisons:
            header = _header(comparison.k)
            lines += ["", f"## {comparison.split}", "", comparison.description, ""]
            lines += [_markdown_row(header), _markdown_row(["---"] + ["--:"] * (len(header) - 1))]
            for row in comparison.rows:
                cells = [row.ranker.replace("|", "\\|"), *_figures(row, comparison.k)]
                bold = row is comparison.model
                lines.append(_markdown_row([f"**{cell}**" for cell in cells] if bold else cells))
            lines += ["", verdict(comparison)]
        return "\n".join(lines) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and ``ndcg.png``, each aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(folder / "ndcg.png") as aside:
        draw(report.comparisons, aside, title=report.catalog)
    with write_aside(folder / "report.md") as aside:
        aside.write_text(report.to_markdown(), encoding="utf-8")
    write_json(folder / "report.json", report.to_json())


def verdict(comparison: Comparison) -> str:
    """One sentence: the best baseline, and how the model stands to it."""
    first, best = comparison.k[0], comparison.best_baseline
    start = f"Best baseline: {best.ranker}, NDCG@{first} {best.ndcg[first]:.4f}."
    if comparison.model is None:
        return start
    interval = comparison.ratio_interval()
    if comparison.ratio is None or interval is None:
        return f"{start} No baseline found anything, so the model has no ratio to it."
    low, high = interval
    return (
        f"{start} {comparison.model.ranker} reaches {comparison.ratio:.2f} times that "
        f"(95 % of resampled cases: {low:.2f} to {high:.2f})."
    )


def _split_json(comparison: Comparison) -> dict[str, Any]:
    interval = comparison.ratio_interval()
    return {
        "name": comparison.split,
        "description": comparison.description,
        "items_ranked": comparison.items,
        "cases": comparison.cases,
        "k": list(comparison.k),
        "best_baseline": comparison.best_baseline.ranker,
        "model": comparison.model.ranker if comparison.model else None,
        "ratio": comparison.ratio,
        "verdict": verdict(comparison),
        "ratio_interval_95": list(interval) if interval else None,
        "rankers": [
            {
                "name": row.ranker,
                "recall": {str(k): value for k, value in row.recall.items()},
                "ndcg": {str(k): value for k, value in row.ndcg.items()},
                "mrr": row.mrr,
                "coverage": {str(k): value for k, value in row.coverage.items()},
            }
            for row in comparison.rows
        ],
    }


def _header(cutoffs: Sequence[int]) -> list[str]:
    per_cutoff = [f"{name}@{k}" for name in ("Recall", "NDCG") for k in cutoffs]
    return ["ranker", *per_cutoff, "MRR", *[f"coverage@{k}" for k in cutoffs]]


def _figures(row: Metrics, cutoffs: Sequence[int]) -> list[str]:
    found = [f"{values[k]:.4f}" for values in (row.recall, row.ndcg) for k in cutoffs]
    return [*found, f"{row.mrr:.4f}", *[f"{row.coverage[k]:.1%}" for k in cutoffs]]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
