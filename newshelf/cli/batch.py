"""Recommendations for many units, asked of a running gateway and written to one Parquet file."""

import csv
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.progress import track

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
_CLIENTS, _PENDING = 8, 1_000
_ROWS = 50_000
"""Rows of one group of the file, all in memory."""
_TRIES = 5
_PAUSE_S = 0.5
_TRY_AGAIN = {429, 503, 504}


@dataclass(frozen=True)
class FailedUnit:
    """A unit without an answer; the status is 0 if the gateway did not answer."""

    unit: str
    status: int
    message: str


def read_units(path: Path) -> list[str]:
    """Return the distinct units of a text file, or of the unit column of CSV or Parquet."""
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
    console: Console,
) -> list[FailedUnit]:
    """Ask for every unit, write the answers in order, and return the units without an answer.

    ``out`` is a Parquet file, replaced when it is complete; ``OUT.failed.csv`` lists the units that
    got no answer. A busy gateway is asked again, up to five times.
    """
    failed: list[FailedUnit] = []
    rows: list[dict[str, object]] = []
    with (
        write_aside(out) as aside,
        httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
            trust_env=False,
        ) as http,
        ThreadPoolExecutor(_CLIENTS) as pool,
        parquet.ParquetWriter(aside, _SCHEMA) as writer,
    ):
        answers = (
            answer
            for start in range(0, len(units), _PENDING)
            for answer in pool.map(
                lambda unit: _ask(http, {**fields, "unit": unit}), units[start : start + _PENDING]
            )
        )
        for answer in track(answers, "recommendations", len(units), console=console):
            if isinstance(answer, FailedUnit):
                failed.append(answer)
                continue
            rows += answer
            if len(rows) >= _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))
    with (
        write_aside(out.with_name(f"{out.name}.failed.csv")) as aside,
        aside.open("w", encoding="utf-8", newline="") as file,
    ):
        lines = csv.writer(file)
        lines.writerow(["unit", "status", "message"])
        lines.writerows((one.unit, one.status, one.message) for one in failed)
    return failed


def _ask(http: httpx.Client, body: Mapping[str, object]) -> list[dict[str, object]] | FailedUnit:
    unit, status, message = str(body["unit"]), 0, ""
    for attempt in range(_TRIES):
        pause_s = _PAUSE_S * 2**attempt
        try:
            response = http.post("/v1/recommend", json=body)
        except httpx.TransportError as error:
            message = repr(error)
        else:
            status, message = response.status_code, response.text[:500]
            if status == httpx.codes.OK:
                answer = response.json()
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
            if status not in _TRY_AGAIN:
                break
            pause_s = float(response.headers.get("retry-after", pause_s))
        time.sleep(pause_s)
    return FailedUnit(unit, status, message)
