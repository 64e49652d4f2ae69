"""``./run units``: shown, merged, erased, by the id that the front end sends."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.config import GatewaySettings
from newshelf.gateway.histories import pseudonyms
from newshelf.pipeline.workspace import Workspace
from newshelf.server.process import write_plan
from newshelf.server.program import GatewayPlan
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

runner = CliRunner()


@pytest.fixture(params=[False, True], ids=["ids", "pseudonyms"])
def plan(tmp_path: Path, request: pytest.FixtureRequest) -> GatewayPlan:
    made = GatewayPlan(
        settings=GatewaySettings(),
        inference_url="http://127.0.0.1:1",
        api_keys=tmp_path / "keys.json",
        popular=tmp_path / "popular.json",
        store_url=f"sqlite:///{tmp_path / 'events.db'}",
        pseudonym_key=tmp_path / "pseudonym.key" if request.param else None,
    )
    workspace = Workspace(tmp_path, tmp_path / "shop", is_sample=False)
    write_plan(workspace.gateway_plan, made)
    return made


def run(tmp_path: Path, *words: str) -> tuple[int, str]:
    result = runner.invoke(app, ["units", *words, "--workspace", str(tmp_path)])
    return result.exit_code, result.output


def test_a_unit_is_shown_merged_and_erased(plan: GatewayPlan, tmp_path: Path) -> None:
    stored = pseudonyms(plan.pseudonym_key)
    with EventStore.open(plan.store_url) as store:
        events = [
            Feedback(
                event_id=unit,
                event_type="favourite",
                item_id="ring",
                at=datetime.now(UTC),
                unit=stored(unit),
            )
            for unit in ("cookie", "ann")
        ]
        store.write(WriteBatch(feedback=events))
        assert run(tmp_path, "merge", "cookie", " ann ")[0] == 0
        code, shown = run(tmp_path, "show", "ann")
        assert (code, len(json.loads(shown)["feedback"])) == (0, 2)
        code, said = run(tmp_path, "erase", "ann")
        assert (code, "2 events" in said) == (0, True)
        assert list(store.feedback()) == []
    assert run(tmp_path, "merge", "ann", "bob")[0] == 2
    code, said = run(tmp_path, "show", "x" * 201)
    assert (code, "200 characters" in said) == (2, True)
