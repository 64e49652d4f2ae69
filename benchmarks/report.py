"""The report of a benchmark: Markdown, and a table for the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.records import Record
from benchmarks.results import Row, TaskResult, Verdict, best, judge, measures, ratio, rows_of
from newshelf.files import write_aside

_LARGE = 10


def value_words(value: float, *, percent: bool) -> str:
    """``86.1 %``, ``0.1421``, or ``12.0`` where fractions of thousands say nothing."""
    if percent:
        return f"{value:.1%}".replace("%", " %")
    return f"{value:.1f}" if abs(value) >= _LARGE else f"{value:.4f}"


def row_words(row: Row, *, percent: bool) -> str:
    """Mean (or median) ± standard deviation over the seeds; the value alone with one seed."""
    mean = value_words(row.middle, percent=percent)
    if len(row.values) == 1:
        return mean
    spread = value_words(row.spread, percent=percent)
    if percent:
        return f"{mean.removesuffix(' %')} ± {spread}"
    return f"{mean} ± {spread}"


def row_cells(
    row: Row, measure: str, yardstick: Row | None, *, first: bool, percent: bool
) -> list[str]:
    """Measure (in the first of its rows alone), method, value, ratio to the best baseline."""
    times = ratio(row, yardstick)
    return [
        measure if first else "",
        f"{row.method} (baseline)" if row.baseline else row.method,
        row_words(row, percent=percent),
        "–" if times is None else f"{times:.2f}",
    ]


def goal_words(verdict: Verdict, *, percent: bool, lower: bool) -> str:
    """``≥ 86.0 %``, ``≥ 1.5 × baseline = 12.3 %``, ``≥ baseline + 3.0 points = 71.2 %``."""
    goal, sign = verdict.goal, "≤" if lower else "≥"
    if goal.kind == "value":
        return f"{sign} {value_words(goal.at_least, percent=percent)}"
    needed = "?" if verdict.needed is None else value_words(verdict.needed, percent=percent)
    if goal.kind == "times":
        return f"{sign} {goal.at_least:g} × baseline = {needed}"
    by = f"{100 * goal.at_least:.1f} points" if percent else f"{goal.at_least:g}"
    return f"{sign} baseline + {by} = {needed}"


def reached_words(verdict: Verdict) -> str:
    """``yes`` or ``no``, and why when nothing could be compared."""
    if verdict.method is None:
        return "no: not measured"
    if verdict.needed is None:
        return "no: no baseline"
    return "yes" if verdict.reached else "no"


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
    lines += _result_lines(result, heading)
    lines += [f"- {note}" for note in result.notes]
    lines += [""] if result.notes else []
    lines += [result.details.strip(), ""] if result.details else []
    for caption, path in result.figures.items():
        lines += [f"![{caption}]({path.as_posix()})", ""]
    return lines


def _result_lines(result: TaskResult, heading: Heading) -> list[str]:
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


def print_result(result: TaskResult, console: Console) -> None:
    """One table: measure, method, value, ratio to the best baseline, goal, reached."""
    verdicts = {verdict.goal.measure: verdict for verdict in judge(result)}
    table = Table(title=escape(result.title), title_justify="left")
    table.add_column("measure")
    table.add_column("method")
    for name in ("mean ± sd", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("goal")
    table.add_column("reached")
    for measure in measures(result):
        lower = measure in result.lower_is_better
        rows = rows_of(result, measure)
        yardstick = best(rows, baseline=True, lower=lower)
        top = best(rows, baseline=False, lower=lower)
        verdict = verdicts.get(measure)
        for place, row in enumerate(rows):
            cells = row_cells(row, measure, yardstick, first=place == 0, percent=result.percent)
            judged = verdict.method if verdict is not None else None
            is_judged = verdict is not None and row is (judged or yardstick)
            if verdict is not None and is_judged:
                cells += [
                    goal_words(verdict, percent=result.percent, lower=lower),
                    reached_words(verdict),
                ]
            style = "bold" if row is top else "green" if row is yardstick else None
            table.add_row(*[escape(cell) for cell in cells], style=style)
        table.add_section()
    console.print(table)
