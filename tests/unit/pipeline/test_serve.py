"""What a start serves: the workspace's own archives, or what a rollout has promoted."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from newshelf.errors import ServerError
from newshelf.pipeline.serve import served_archives
from newshelf.pipeline.workspace import Workspace
from newshelf.rollout.versions import PromotedFile


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    store = tmp_path / "store"
    store.mkdir()
    own = [store / "encoder-own.mar", store / "recommender-own.mar"]
    for path in (*own, store / "recommender-2.mar"):
        path.write_bytes(b"")
    made = Workspace(tmp_path / "w", tmp_path, is_sample=False, model_store=store)
    made.archive.mkdir(parents=True)
    (made.archive / "archives.json").write_text(json.dumps([str(path) for path in own]))
    return made


def served(workspace: Workspace) -> tuple[dict[str, str], str]:
    console = Console(record=True, width=200)
    found = served_archives(workspace, console)
    return {name: path.name for name, path in found.items()}, console.export_text()


def test_without_a_promotion_the_workspaces_archives_are_served(workspace: Workspace) -> None:
    own = {"encoder": "encoder-own.mar", "recommender": "recommender-own.mar"}
    assert served(workspace) == (own, "")
    PromotedFile(workspace.promoted).promote("own", "spring", "1")
    assert served(workspace) == (own, "")


def test_a_promoted_archive_is_served_and_printed(workspace: Workspace) -> None:
    PromotedFile(workspace.promoted).promote("2", "spring", "own")
    found, printed = served(workspace)
    assert found == {"encoder": "encoder-own.mar", "recommender": "recommender-2.mar"}
    assert "recommender-2.mar, which rollout spring" in printed
    assert "recommender-own.mar" in printed


def test_a_missing_promoted_archive_is_an_error(workspace: Workspace) -> None:
    PromotedFile(workspace.promoted).promote("3", "spring", "own")
    with pytest.raises(ServerError, match=r"spring promoted version 3"):
        served(workspace)
