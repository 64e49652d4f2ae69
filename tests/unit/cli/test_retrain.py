"""The verb of retrainings: its exit codes, its report, and how it repeats."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.errors import RolloutError, SetupError
from newshelf.pipeline import drift
from newshelf.pipeline.drift import DriftReport, Measure
from newshelf.pipeline.retrain import Retraining, RetrainRun
from tests.receiver import receiver

START = "2026-03-01T12:00:00Z"


@pytest.fixture
def call(tmp_path: Path) -> Any:
    def run(*words: str) -> tuple[int, str]:
        (tmp_path / "shop").mkdir(exist_ok=True)
        places = ["--catalog", str(tmp_path / "shop"), "--workspace", str(tmp_path / "workspace")]
        done = CliRunner().invoke(app, ["retrain", *words, *places], env={"COLUMNS": "200"})
        return done.exit_code, " ".join(done.output.split())

    return run


def ended(work: Retraining, status: str) -> RetrainRun:
    run = RetrainRun.model_validate_json(
        json.dumps(
            {
                "name": "first", "started": START, "served": "1", "checkpoint": None,
                "status": status, "reason": "so it is", "ended": START,
            }
        )
    )  # fmt: skip
    work.workspace.retrain.mkdir(parents=True, exist_ok=True)
    (work.workspace.retrain / "first.json").write_text(run.model_dump_json())
    return run


@pytest.mark.parametrize(("status", "code"), [("rollout", 0), ("failed", 1), ("not promoted", 3)])
def test_the_exit_code_tells_the_result_and_there_is_a_report(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str, code: int
) -> None:
    monkeypatch.setattr(Retraining, "run", lambda work: ended(work, status))
    assert call() == (code, f"{status}: so it is {tmp_path}/workspace/retrain/first.html")
    assert "so it is" in (tmp_path / "workspace" / "retrain" / "first.html").read_text()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(RolloutError("in progress"), 3, "not now: in progress"), (SetupError("locked"), 1, "locked")],
)
def test_a_refusal_is_no_error_and_an_error_is(
    call: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
) -> None:
    def refuse(_: Retraining) -> None:
        raise error

    monkeypatch.setattr(Retraining, "run", refuse)
    found, output = call()
    assert found == code
    assert said in output


def test_a_webhook_tells_of_a_failed_retraining(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    with receiver() as received:
        settings.write_text(
            f'[webhooks]\nurls = ["{received.url}"]\nsecret = "{tmp_path}/webhooks.key"\n'
        )
        for status in ("failed", "rollout", "not promoted"):
            monkeypatch.setattr(Retraining, "run", lambda work, how=status: ended(work, how))
            call("--settings", str(settings))

        def refuse(_: Retraining) -> None:
            raise SetupError("the disk is full")

        monkeypatch.setattr(Retraining, "run", refuse)
        assert call("--settings", str(settings))[0] == 1
        told = [received.next() for _ in range(received.arrived.qsize())]
    assert [one["event"] for one in told] == ["retrain_failed", "retrain_failed"]
    assert [one["reason"] for one in told] == ["so it is", "the disk is full"]


def test_options_replace_the_settings(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(work: Retraining) -> RetrainRun:
        seen.append(work.settings.retrain)
        return ended(work, "rollout")

    monkeypatch.setattr(Retraining, "run", run)
    assert call("--gate", "no-worse", "--plan", "plan.yaml")[0] == 0
    assert call()[0] == 0
    assert [(one.gate, one.plan) for one in seen] == [("no-worse", "plan.yaml"), ("better", "")]


@pytest.mark.parametrize("every", ["7", "0d", "d", "-1d", "7w", "nand"])
def test_an_invalid_period_is_refused(call: Any, every: str) -> None:
    code, output = call(f"--every={every}")
    assert code == 1
    assert "--every" in output


def test_it_repeats_after_the_period_whatever_happens(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, begun = [1_772_366_400.0], []

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    def run(work: Retraining) -> RetrainRun:
        begun.append(now_s[0])
        if len(begun) == 2:
            raise SetupError("the disk is full")
        if len(begun) == 4:
            # SIGTERM arrives as this.
            raise KeyboardInterrupt
        done = ended(work, "rollout")
        at = f'"started":{now_s[0]}'
        path = work.workspace.retrain / "first.json"
        path.write_text(path.read_text().replace(f'"started":"{START}"', at))
        return done

    monkeypatch.setattr(Retraining, "run", run)
    monkeypatch.setattr("newshelf.cli.retrain.time.sleep", sleep)
    monkeypatch.setattr("newshelf.cli.retrain.time.time", lambda: now_s[0])
    code, output = call("--every", "7d")
    assert code == 130
    assert "error: the disk is full" in output
    day_s = 86_400
    first, second, third, fourth = begun
    assert (second - first) / day_s == 7
    # An hour after the error, and a week after the next success.
    assert third - second == 3_600
    assert (fourth - third) / day_s == 7


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


@pytest.mark.parametrize(("measure", "told"), [(DRIFTED, 1), (KNOWN, 0)])
def test_a_webhook_tells_of_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: Measure, told: int
) -> None:
    now = datetime.now(UTC)
    report = DriftReport("shop", "abc", now, now, 0.01, (measure,))
    monkeypatch.setattr(drift, "drift_report", lambda *_: report)
    (tmp_path / "shop").mkdir()
    settings = tmp_path / "settings.toml"
    with receiver() as received:
        settings.write_text(
            f'[webhooks]\nurls = ["{received.url}"]\nsecret = "{tmp_path}/webhooks.key"\n'
        )
        words = ["drift", "--catalog", str(tmp_path / "shop"), "--workspace", str(tmp_path / "w")]
        CliRunner().invoke(app, [*words, "--settings", str(settings)])
        assert received.arrived.qsize() == told
        if told:
            event = received.next()
            assert (event["event"], event["version"]) == ("drift", "abc")
            assert event["reason"] == report.verdict
