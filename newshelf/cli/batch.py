"""Recommendations for many units, asked of a running gateway and written to one Parquet file."""

import asyncio
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.progress import Progress

from newshelf.errors import SetupError
from newshelf.files import write_aside

_SCHEMA = pa.schema(
    {
        "unit": pa.string(),
        "position": pa.int32(),
        "item_id": pa.string(),
        "score": pa.float64(),
        "source": pa.string(),
        "request_id": pa.string(),
    }
)
_UNITS_PER_GROUP = 2_000
"""Units of one row group, all in memory."""
_TRIES = 5
_PAUSE_S = 0.5
_TRY_AGAIN = {429, 503, 504}


@dataclass(frozen=True)
class FailedUnit:
    """A unit without an answer."""

    unit: str
    status: int
    """Of the last answer; 0 if there was none."""
    message: str


@dataclass
class BatchReport:
    """Outcome of a batch."""

    units: int = 0
    rows: int = 0
    failed: list[FailedUnit] = field(default_factory=list)


def read_units(path: Path) -> list[str]:
    """Return the distinct units of a file: a line of text each, or a column of CSV or Parquet.

    The column is ``unit``, ``user_id``, or the only one.

    Raises:
        SetupError: the file cannot be read, or has no such column or no unit.
    """
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        elif path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            table = pd.DataFrame({"unit": path.read_text(encoding="utf-8-sig").splitlines()})
    except (OSError, ValueError) as error:
        raise SetupError(f"the units {path} cannot be read: {error}") from error
    names = [str(name) for name in table.columns]
    name = next((name for name in ("unit", "user_id") if name in names), None)
    if name is None and len(names) != 1:
        raise SetupError(f"{path} has no column unit or user_id; it has {', '.join(names)}")
    column = table[name or names[0]].dropna()
    if pd.api.types.is_float_dtype(column):
        raise SetupError(f"{path} has fractions as units: write them as text")
    units = list(dict.fromkeys(filter(None, (str(cell).strip() for cell in column))))
    if not units:
        raise SetupError(f"{path} names no unit")
    return units


def recommend_all(
    units: Sequence[str],
    fields: Mapping[str, object],
    out: Path,
    *,
    url: str,
    key: str,
    clients: int,
    console: Console,
) -> BatchReport:
    """Ask for every unit, and write the answers in the order of the units.

    A busy gateway is asked again, up to five times. ``OUT.failed.csv`` lists the units that got
    no answer.

    Args:
        units: distinct.
        fields: of every request, such as ``placement`` and ``k``.
        out: a Parquet file, replaced when it is complete.
        url: of the gateway.
        key: of the gateway.
        clients: number of requests in progress.
        console: shows the progress.
    """
    report = BatchReport()

    async def ask_all(writer: parquet.ParquetWriter, progress: Progress) -> None:
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        headers = {"Authorization": f"Bearer {key}"}
        task = progress.add_task("recommendations", total=len(units))
        async with httpx.AsyncClient(
            base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as http:
            turn = asyncio.Semaphore(clients)

            async def ask(unit: str) -> list[dict[str, Any]] | FailedUnit:
                async with turn:
                    answer = await _ask(http, {**fields, "unit": unit})
                progress.advance(task)
                return answer

            for start in range(0, len(units), _UNITS_PER_GROUP):
                group = units[start : start + _UNITS_PER_GROUP]
                answers = await asyncio.gather(*map(ask, group))
                report.units += len(group)
                report.failed += [one for one in answers if isinstance(one, FailedUnit)]
                rows = [row for one in answers if not isinstance(one, FailedUnit) for row in one]
                report.rows += len(rows)
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))

    with (
        write_aside(out) as aside,
        Progress(console=console, transient=True) as progress,
        parquet.ParquetWriter(aside, _SCHEMA) as writer,
    ):
        asyncio.run(ask_all(writer, progress))
    _write_failed(out.with_name(f"{out.name}.failed.csv"), report.failed)
    return report


async def _ask(
    http: httpx.AsyncClient, body: Mapping[str, object]
) -> list[dict[str, Any]] | FailedUnit:
    unit, status, message = str(body["unit"]), 0, ""
    for attempt in range(_TRIES):
        pause_s = _PAUSE_S * 2**attempt
        try:
            response = await http.post("/v1/recommend", json=body)
        except httpx.TransportError as error:
            message = repr(error)
        else:
            if response.status_code == httpx.codes.OK:
                return _rows(unit, response.json())
            status, message = response.status_code, _reason(response)
            if status not in _TRY_AGAIN:
                break
            pause_s = float(response.headers.get("retry-after", pause_s))
        await asyncio.sleep(pause_s)
    return FailedUnit(unit, status, message)


def _rows(unit: str, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "unit": unit,
            "position": position,
            "item_id": item["id"],
            "score": item["score"],
            "source": item["source"],
            "request_id": answer["request_id"],
        }
        for position, item in enumerate(answer["items"], start=1)
    ]


def _reason(response: httpx.Response) -> str:
    try:
        body = response.json()
        return f"{body['code']}: {body['message']} (field {body.get('field')})"
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def _write_failed(path: Path, failed: Sequence[FailedUnit]) -> None:
    if not failed:
        path.unlink(missing_ok=True)
        return
    with write_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unit", "status", "message"])
        writer.writerows((one.unit, one.status, one.message) for one in failed)
