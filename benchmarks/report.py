"""The report of a benchmark: Markdown, and a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.records import BenchmarkRecord
from benchmarks.results import Row, RowGroup, TaskResult, Verdict, judge, ratio, row_groups
from newshelf.files import write_aside

_LARGE = 10


def value_words(value: float, *, percent: bool) -> str:
    """Return ``86.1 %``, ``0.1421``, or ``12.0`` where further digits mean nothing."""
    if percent:
        return f"{value:.1%}".replace("%", " %")
    return f"{value:.1f}" if abs(value) >= _LARGE else f"{value:.4f}"


def row_words(row: Row, *, percent: bool) -> str:
    """Return mean (or median) ± standard deviation over the seeds; with one seed its value."""
    mean = value_words(row.middle, percent=percent)
    if len(row.values) == 1:
        return mean
    spread = value_words(row.spread, percent=percent)
    if percent:
        return f"{mean.removesuffix(' %')} ± {spread}"
    return f"{mean} ± {spread}"


def row_cells(row: Row, group: RowGroup, *, first: bool, percent: bool) -> list[str]:
    """Return measure (only if ``first``), method, value and ratio to the best baseline."""
    times = ratio(row, group.baseline)
    return [
        group.measure if first else "",
        f"{row.method} (baseline)" if row.baseline else row.method,
        row_words(row, percent=percent),
        "–" if times is None else f"{times:.2f}",
    ]


def goal_words(verdict: Verdict, *, percent: bool, lower: bool) -> str:
    """Return ``≥ 86.0 %``, ``≥ 1.5 × baseline = 12.3 %``, ``≥ baseline + 3.0 points = 71.2 %``."""
    goal, sign = verdict.goal, "≤" if lower else "≥"
    if goal.kind == "value":
        return f"{sign} {value_words(goal.at_least, percent=percent)}"
    needed = "?" if verdict.needed is None else value_words(verdict.needed, percent=percent)
    if goal.kind == "times":
        return f"{sign} {goal.at_least:g} × baseline = {needed}"
    by = f"{100 * goal.at_least:.1f} points" if percent else f"{goal.at_least:g}"
    return f"{sign} baseline + {by} = {needed}"


def reached_words(verdict: Verdict) -> str:
    """Return ``yes`` or ``no``, and the reason if nothing could be compared."""
    if verdict.method is None:
        return "no: not measured"
    if verdict.needed is None:
        return "no: no baseline"
    return "yes" if verdict.reached else "no"


@dataclass(frozen=True)
class Heading:
    """Title and wording of one benchmark's report."""

    title: str
    introduction: str
    repeated: str = "seed"
    """A row has a value for each of them."""
    average: str = "mean"
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Task → its revision, from 1 on; a new one means that earlier results no longer hold."""

    def revision(self, task: str) -> int:
        """Return the revision of a task."""
        return self.revisions.get(task, 1)

    def is_outdated(self, record: BenchmarkRecord) -> bool:
        """Return whether the task was changed after the record's result."""
        return record.result is not None and record.revision < self.revision(record.task)


def write_report(records: Mapping[str, BenchmarkRecord], out: Path, heading: Heading) -> None:
    """Write the report atomically; figures are linked relative to it."""
    with write_aside(out) as aside:
        aside.write_text(render(records, heading), encoding="utf-8")


def render(records: Mapping[str, BenchmarkRecord], heading: Heading) -> str:
    """Return the whole report; figures are linked as the records hold them."""
    lines = [f"# {heading.title}", "", heading.introduction, ""]
    lines += _summary(records, heading)
    lines += _environments(records)
    for record in records.values():
        lines += _section(record, heading)
    return "\n".join(lines).rstrip() + "\n"


def _summary(records: Mapping[str, BenchmarkRecord], heading: Heading) -> list[str]:
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


def _environments(records: Mapping[str, BenchmarkRecord]) -> list[str]:
    """Distinct environments, with the tasks that ran in each."""
    found: dict[str, list[str]] = {}
    for record in records.values():
        if record.result is not None:
            versions = ", ".join(f"{name} {value}" for name, value in record.versions.items())
            found.setdefault(f"{record.hardware} · {versions}", []).append(record.task)
    lines = [f"- {', '.join(tasks)}: {environment}" for environment, tasks in found.items()]
    return ["## Measured with", "", *lines, ""] if lines else []


def _section(record: BenchmarkRecord, heading: Heading) -> list[str]:
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
    lines += _result_lines(result, heading)
    lines += [f"- {note}" for note in result.notes]
    lines += [""] if result.notes else []
    lines += [result.details.strip(), ""] if result.details else []
    for caption, path in result.figures.items():
        lines += [f"![{caption}]({path.as_posix()})", ""]
    return lines


def _result_lines(result: TaskResult, heading: Heading) -> list[str]:
    """All rows, best first within a measure, the judged one in bold; then goals."""
    table = []
    groups = row_groups(result)
    for group in groups:
        ranked = sorted(group.rows, key=lambda row: row.middle, reverse=not group.lower)
        for place, row in enumerate(ranked):
            cells = row_cells(row, group, first=place == 0, percent=result.percent)
            if group.verdict is not None and row is group.verdict.method:
                cells = [cells[0], *[f"**{cell}**" for cell in cells[1:]]]
            table.append(cells)
    header = ("measure", "method", f"{heading.average} ± sd", "× best baseline")
    lines = [markdown_table(header, "llrr", table), ""]
    for verdict in judge(result):
        lower = verdict.goal.measure in result.lower_is_better
        words = goal_words(verdict, percent=result.percent, lower=lower)
        lines += [f"Goal, {verdict.goal.measure}: {words}; reached: {reached_words(verdict)}.", ""]
    behind = [_behind(group, percent=result.percent) for group in groups if _is_behind(group)]
    if behind:
        lines += [f"A baseline is ahead of every method in: {'; '.join(behind)}.", ""]
    return lines


def _is_behind(group: RowGroup) -> bool:
    """Return True when the best baseline is ahead of every method."""
    if group.baseline is None or group.method is None:
        return False
    gain = group.method.middle - group.baseline.middle
    return gain > 0 if group.lower else gain < 0


def _behind(group: RowGroup, *, percent: bool) -> str:
    base, top = (
        f"{row.method} {value_words(row.middle, percent=percent)}"
        for row in (group.baseline, group.method)
        if row is not None
    )
    return f"{group.measure} ({base}; best method: {top})"


def markdown_table(header: Sequence[str], alignment: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; ``alignment`` has ``l`` or ``r`` per column."""
    marks = ["--:" if side == "r" else "---" for side in alignment]
    lines = [header, marks, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _inline(text: str) -> str:
    return " ".join(text.split())


def print_result(result: TaskResult, average: str, console: Console) -> None:
    """Print measure, method, value, ratio to the best baseline, goal and verdict."""
    table = Table(title=escape(result.title), title_justify="left")
    table.add_column("measure")
    table.add_column("method")
    for name in (f"{average} ± sd", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("goal")
    table.add_column("reached")
    for group in row_groups(result):
        verdict = group.verdict
        for place, row in enumerate(group.rows):
            cells = row_cells(row, group, first=place == 0, percent=result.percent)
            if verdict is not None and row is (verdict.method or group.baseline):
                cells += [
                    goal_words(verdict, percent=result.percent, lower=group.lower),
                    reached_words(verdict),
                ]
            style = {id(group.method): "bold", id(group.baseline): "green"}.get(id(row))
            table.add_row(*[escape(cell) for cell in cells], style=style)
        table.add_section()
    console.print(table)
