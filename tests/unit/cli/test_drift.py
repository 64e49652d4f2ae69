"""Exit codes, table and JSON of ``./run drift``; what it measures is tested with the pipeline."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.pipeline import drift
from newshelf.pipeline.drift import DriftReport, Measure

KNOWN = Measure("price", 0.25, 0.1, 1e-9, "from 5: 1.0%", "from 5: 9.0%")
DRIFTED = Measure("brand", 0.25, 0.5, 1e-9, "others: 1.0%", "others: 60.0%")
UNKNOWN = Measure("fallback", 0.25, reason="3 shown products in the last one")


@pytest.mark.parametrize(
    ("measures", "code", "verdict"),
    [
        ((KNOWN, UNKNOWN), 0, "No drift. 1 of 2 measures had enough data."),
        ((KNOWN, DRIFTED), 3, "Drift: brand."),
        ((UNKNOWN,), 4, "Unknown: no measure has enough data."),
    ],
)
def test_the_exit_code_tells_drift_from_too_little_data(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measures: tuple[Measure, ...],
    code: int,
    verdict: str,
) -> None:
    now = datetime.now(UTC)
    report = DriftReport("shop", "abc", now, now, 0.01, measures)
    monkeypatch.setattr(drift, "drift_report", lambda *_: report)
    (tmp_path / "shop").mkdir()
    words = ["drift", "--catalog", str(tmp_path / "shop"), "--workspace", str(tmp_path / "w")]
    shown = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert shown.exit_code == code
    assert verdict in shown.output
    assert (tmp_path / "w" / "drift" / "report.html").is_file()
    printed = CliRunner().invoke(app, [*words, "--json"])
    assert printed.exit_code == code
    kept = json.loads((tmp_path / "w" / "drift" / "report.json").read_text())
    assert json.loads(printed.output) == kept
    assert kept["verdict"].startswith(verdict)
