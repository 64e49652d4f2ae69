"""The verbs of rollouts, where there is no model server: what is refused changes nothing."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.rollout.controller import HostReport
from newshelf.rollout.plan import RolloutState, draft, load_plan
from newshelf.store.store import EventStore
from tests.unit.cli.verbs import Run, verbs_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def url(tmp_path: Path, empty_store: Path) -> str:
    shutil.copyfile(empty_store, tmp_path / "events.db")
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def run(tmp_path: Path, url: str) -> Run:
    return verbs_of("rollout", tmp_path, url)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The repository's example of a plan, for versions 1.0 and 1.1."""
    for version in ("1.0", "1.1"):
        (tmp_path / f"recommender-{version}.mar").write_bytes(b"")
    return ROOT / "configs" / "rollout.yaml"


@pytest.fixture
def planned(example: Path, url: str) -> str:
    """A rollout that has not begun."""
    plan = load_plan(example)
    state = draft("spring", "salt", datetime.now(UTC))
    with EventStore.open(url) as store:
        store.rollouts.create("spring", plan.model_dump_json(), state.model_dump_json(), None)
    return "spring"


def changed(example: Path, tmp_path: Path, **fields: object) -> Path:
    table = yaml.safe_load(example.read_text()) | fields
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in table.items() if v is not None}))
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"challenger": "1.2"}, "version 1.2 is not in the model store"),
        ({"control": None}, "control: is missing"),
        ({"success": [{"metric": "charm", "minimum_effect": 0.1}]}, "success[0].metric"),
        ({"ramp": []}, "ramp: give at least one"),
        ({}, "TorchServe is not running"),
    ],
)
def test_an_invalid_plan_starts_nothing(
    run: Run, example: Path, tmp_path: Path, url: str, fields: dict[str, object], message: str
) -> None:
    code, output = run("start", changed(example, tmp_path, **fields))
    assert (code, message in output) == (2, True), output
    with EventStore.open(url) as store:
        assert store.rollouts.all() == []


@pytest.mark.parametrize("name", ["../up", "two words", "", "x" * 65])
def test_a_name_that_is_not_a_file_name_is_refused(run: Run, example: Path, name: str) -> None:
    code, output = run("start", example, "--name", name or "-")
    assert code == 2
    assert "name for a rollout" in output


def test_without_a_rollout_every_verb_names_the_start_command(run: Run) -> None:
    for verb in ("status", "pause", "resume", "promote", "abort", "rollback", "report"):
        code, output = run(verb)
        assert code == 2, verb
        assert "./run rollout start PLAN.yaml" in output


def test_without_a_controller_there_are_no_rollouts(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["rollout", "status", "--workspace", str(tmp_path)])
    assert done.exit_code == 2
    assert "no rollouts" in done.output


def test_commands_are_refused_or_stored_by_phase(run: Run, planned: str, url: str) -> None:
    for verb in ("pause", "resume", "promote"):
        code, output = run(verb, planned)
        assert code == 2
        assert "spring: it is draft" in output
    assert run("abort")[0] == 0
    with EventStore.open(url) as store:
        state = RolloutState.model_validate_json(store.rollouts.get("spring").state)
    assert (state.phase, state.reason) == ("aborted", "aborted by hand")
    code, output = run("status", planned)
    assert code == 0
    assert "spring: aborted" in output
    code, output = run("status", "autumn")
    assert code == 2
    assert "no rollout autumn; there is spring" in output


def test_the_status_names_the_host_that_holds_it_up(run: Run, planned: str, url: str) -> None:
    with EventStore.open(url) as store:
        for host, obstacle in (("shop-0", None), ("shop-1", "no worker of 1.1 is ready")):
            report = HostReport(rollout=planned, revision=1, obstacle=obstacle)
            assert store.hosts.acquire(host, host, 600)
            assert store.hosts.report(host, host, report.model_dump_json())
        assert store.hosts.acquire("shop-2", "shop-2", 600)
    _, output = run("status")
    assert "host shop-0: ready" in output
    assert "host shop-1: no worker of 1.1 is ready" in output
    assert "host shop-2: has not looked" in output
    assert run("abort")[0] == 0
    assert "shop-0" not in run("status")[1]


def test_the_report_is_written_to_the_given_file(run: Run, planned: str, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert run("report", planned, "--out", out)[0] == 0
    assert "<h1>Rollout spring</h1>" in out.read_text()
    assert run("report")[0] == 0
    assert (tmp_path / "workspace" / "rollout" / "spring.html").is_file()
