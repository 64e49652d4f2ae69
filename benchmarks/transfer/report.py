"""The Markdown report of all tasks that were ever measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.transfer.record import Record
from benchmarks.transfer.result import TaskResult
from benchmarks.transfer.verdict import best, judge, measures, ratio, rows_of
from benchmarks.transfer.words import goal_words, reached_words, row_cells, row_words, value_words
from newshelf.files import write_aside

__all__ = ["Heading", "render", "write_report"]


@dataclass(frozen=True)
class Heading:
    """What stands above the results of one benchmark."""

    title: str
    introduction: str
    repeated: str = "seed"
    """What the values of a row are one each of."""
    average: str = "mean"
    revisions: Mapping[str, int] = field(default_factory=dict)
    """How often a task was changed so that its earlier results no longer hold, from 1 on."""

    def revision(self, task: str) -> int:
        """1 for a task that was never changed so."""
        return self.revisions.get(task, 1)

    def is_outdated(self, record: Record) -> bool:
        """Whether the task was changed after the record's result."""
        return record.result is not None and record.revision < self.revision(record.task)


def write_report(records: Mapping[str, Record], out: Path, heading: Heading) -> None:
    """Write the report, aside and renamed; figures are linked relative to it."""
    with write_aside(out) as aside:
        aside.write_text(render(records, heading), encoding="utf-8")


def render(records: Mapping[str, Record], heading: Heading) -> str:
    """The whole report; links to figures as the records hold them.

    Args:
        records: by task, in the order of the sections.
        heading: what stands above them.
    """
    lines = [f"# {heading.title}", "", heading.introduction, ""]
    lines += _summary(records, heading)
    lines += _environments(records)
    for record in records.values():
        lines += _section(record, heading)
    return "\n".join(lines).rstrip() + "\n"


def _summary(records: Mapping[str, Record], heading: Heading) -> list[str]:
    rows = [
        line
        for record in records.values()
        if record.result is not None
        for line in _goal_rows(record.result, outdated=heading.is_outdated(record))
    ]
    if not rows:
        return []
    header = ("task", "measure", "best baseline", "method", "ratio", "goal", "reached")
    return ["## Goals", "", markdown_table(header, "lllllll", rows), ""]


def _goal_rows(result: TaskResult, *, outdated: bool) -> list[list[str]]:
    rows = []
    for verdict in judge(result):
        measure = verdict.goal.measure
        cells = [
            f"{row.method}, {row_words(row, percent=result.percent)}" if row else "–"
            for row in (verdict.baseline, verdict.method)
        ]
        times = ratio(verdict.method, verdict.baseline) if verdict.method else None
        reached = reached_words(verdict) + ", outdated" * outdated
        rows.append(
            [
                f"[{result.task}](#{result.task})",
                measure,
                *cells,
                "–" if times is None else f"{times:.2f}",
                goal_words(
                    verdict,
                    percent=result.percent,
                    lower=measure in result.lower_is_better,
                ),
                f"**{reached}**",
            ]
        )
    return rows


def _environments(records: Mapping[str, Record]) -> list[str]:
    """Each distinct one once, with the tasks that it was used for."""
    found: dict[str, list[str]] = {}
    for record in records.values():
        if record.result is not None:
            versions = ", ".join(f"{name} {value}" for name, value in record.versions.items())
            found.setdefault(f"{record.hardware} · {versions}", []).append(record.task)
    lines = [f"- {', '.join(tasks)}: {environment}" for environment, tasks in found.items()]
    return ["## Measured with", "", *lines, ""] if lines else []


def _section(record: Record, heading: Heading) -> list[str]:
    result = record.result
    lines = [f'<a id="{record.task}"></a>', ""]
    lines += [f"## {result.title if result else record.task}", ""]
    if record.failure is not None:
        rest = " What follows is the run before it." if result else ""
        lines += [
            f"**The run of {record.failure.date} failed: {_inline(record.failure.error)}**{rest}",
            "",
            f"`{record.failure.command}`",
            "",
        ]
    if result is None:
        return lines
    if heading.is_outdated(record):
        lines += [
            "**Outdated: the task was changed after this run. Its figures are those of the task "
            "before the change.**",
            "",
        ]
    seeds = heading.repeated if len(record.seeds) == 1 else f"{heading.repeated}s"
    numbers = ", ".join(str(seed) for seed in record.seeds)
    lines += [f"{record.date} · {seeds} {numbers} · {record.seconds:.0f} s", ""]
    lines += ["```bash", record.command, "```", "", result.protocol.strip(), ""]
    lines += _rows(result, heading)
    lines += [f"- {note}" for note in result.notes]
    lines += [""] if result.notes else []
    lines += [result.details.strip(), ""] if result.details else []
    for caption, path in result.figures.items():
        lines += [f"![{caption}]({path.as_posix()})", ""]
    return lines


def _rows(result: TaskResult, heading: Heading) -> list[str]:
    """All rows, best first within a measure, the baselines marked."""
    table = []
    goals = {verdict.goal.measure: verdict for verdict in judge(result)}
    for measure in measures(result):
        lower = measure in result.lower_is_better
        rows = rows_of(result, measure)
        yardstick = best(rows, baseline=True, lower=lower)
        ranked = sorted(rows, key=lambda row: row.middle, reverse=not lower)
        for place, row in enumerate(ranked):
            cells = row_cells(row, measure, yardstick, first=place == 0, percent=result.percent)
            if measure in goals and row is goals[measure].method:
                cells = [cells[0], *[f"**{cell}**" for cell in cells[1:]]]
            table.append(cells)
    header = ("measure", "method", f"{heading.average} ± sd", "× best baseline")
    lines = [markdown_table(header, "llrr", table), ""]
    for verdict in judge(result):
        words = goal_words(
            verdict,
            percent=result.percent,
            lower=verdict.goal.measure in result.lower_is_better,
        )
        lines += [f"Goal, {verdict.goal.measure}: {words}; reached: {reached_words(verdict)}.", ""]
    return lines + _behind(result)


def _behind(result: TaskResult) -> list[str]:
    """The measures whose best baseline is ahead of every method."""
    found = []
    for measure in measures(result):
        lower = measure in result.lower_is_better
        rows = rows_of(result, measure)
        base = best(rows, baseline=True, lower=lower)
        top = best(rows, baseline=False, lower=lower)
        if base is None or top is None:
            continue
        if (top.middle > base.middle) if lower else (top.middle < base.middle):
            cells = [
                f"{row.method} {value_words(row.middle, percent=result.percent)}"
                for row in (base, top)
            ]
            found.append(f"{measure} ({cells[0]}; best method: {cells[1]})")
    return [f"A baseline is ahead of every method in: {'; '.join(found)}.", ""] if found else []


def markdown_table(header: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; ``alignment`` has ``l`` or ``r`` per column."""
    marks = ["--:" if side == "r" else "---" for side in alignment]
    lines = [header, marks, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _inline(text: str) -> str:
    return " ".join(text.split())
