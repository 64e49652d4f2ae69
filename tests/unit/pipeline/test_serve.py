"""What a start serves: the workspace's own archives, or what a rollout has promoted."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from newshelf.catalog.catalog import read_catalog
from newshelf.config import Settings
from newshelf.errors import ServerError
from newshelf.pipeline import serve
from newshelf.pipeline.serve import pick_demo, served_archives, stay
from newshelf.pipeline.workspace import Workspace
from newshelf.rollout.versions import PromotedFile
from newshelf.server.ports import Ports
from newshelf.server.state import ServerState
from newshelf.serving import index


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


def test_of_first_and_final_archives_the_last_made_are_served(workspace: Workspace) -> None:
    workspace.first.mkdir()
    first = [
        str(workspace.model_store / f"{model}-1-fp32.mar") for model in ("encoder", "recommender")
    ]
    (workspace.first / "archives.json").write_text(json.dumps(first))
    for folder, at, version in ((workspace.first, 2, "1-fp32"), (workspace.archive, 3, "own")):
        os.utime(workspace.first, (1, 1))
        os.utime(workspace.archive, (1, 1))
        os.utime(folder, (at, at))
        assert served(workspace)[0]["recommender"] == f"recommender-{version}.mar"
    chosen = served_archives(workspace, Console(quiet=True), workspace.first)
    assert chosen["encoder"].name == "encoder-1-fp32.mar"


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


def test_whole_lines_of_a_search_are_printed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ServerState(tmp_path, Ports(), tmp_path, {}, "shop")
    logs = iter(
        ["precision: not ma", "precision: not made yet\narch", "precision: not made yet\n✓\n"]
    )

    def running(_: Path) -> ServerState | None:
        text = next(logs, None)
        if text is None:
            return None
        (tmp_path / "search.log").write_text(text)
        return state

    monkeypatch.setattr("newshelf.pipeline.serve.running_state", running)
    monkeypatch.setattr("newshelf.pipeline.serve._POLL_S", 0)
    console = Console(record=True, width=200)
    with pytest.raises(ServerError, match="was stopped"):
        stay(state, console)
    assert console.export_text() == "precision: not made yet\n✓\n"


def write(folder: Path, **tables: dict[str, list[Any]]) -> Path:
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    return folder


ITEMS = {"id": list("abcd"), "title": ["A", "B", "C", "D"]}


def test_the_last_shopper_with_enough_products(tmp_path: Path) -> None:
    events = [("u", "a"), ("v", "a"), ("v", "b"), ("v", "b"), ("v", "c"), ("v", "d"), ("w", "a")]
    write(
        tmp_path,
        items=ITEMS,
        events={
            "user_id": [user for user, _ in events],
            "item_id": [item for _, item in events],
            "event_type": ["view"] * len(events),
            "timestamp": list(range(len(events))),
        },
    )
    demo = pick_demo(read_catalog(tmp_path))
    assert (demo.history, demo.owner) == (["b", "c", "d"], "shopper v")
    assert demo.titles["b"] == "B"
    assert demo.requests()["recommender"] == {"history": ["b", "c", "d"], "k": 1}


def test_a_basket_when_there_are_no_events(tmp_path: Path) -> None:
    write(
        tmp_path,
        items=ITEMS,
        baskets={"basket_id": ["1", "1", "2"], "item_id": ["c", "d", "a"]},
    )
    demo = pick_demo(read_catalog(tmp_path))
    assert (demo.history, demo.owner) == (["c", "d"], "basket 1")


def test_the_first_products_when_nothing_was_ever_done(tmp_path: Path) -> None:
    demo = pick_demo(read_catalog(write(tmp_path, items=ITEMS)))
    assert demo.history == ["a", "b", "c"]


def test_products_without_titles(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    write(tmp_path, items={"id": ["a"], "image_link": ["a.png"]})
    assert pick_demo(read_catalog(tmp_path)).picture == tmp_path / "a.png"


def test_the_same_shopper_at_every_start(tmp_path: Path) -> None:
    write(tmp_path, items=ITEMS)
    assert pick_demo(read_catalog(tmp_path)) == pick_demo(read_catalog(tmp_path))


@pytest.mark.parametrize(
    ("is_sample", "host", "enabled", "opened"),
    [
        (True, "127.0.0.1", "sample", {"shop", "console"}),
        # A key of the sample lies in a file, and the whole network could reach the gateway.
        (True, "192.0.2.1", "sample", {"shop"}),
        (False, "127.0.0.1", "sample", set()),
        (False, "192.0.2.1", "always", {"shop", "console"}),
        (True, "127.0.0.1", "never", set()),
    ],
)
def test_pages_are_open_on_the_sample_and_the_console_on_loopback(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    is_sample: bool,
    host: str,
    enabled: str,
    opened: set[str],
) -> None:
    monkeypatch.setattr(serve, "write_popular", lambda *_: None)
    monkeypatch.setattr(index, "read_columns", lambda *_: None)
    pages = {"enabled": enabled}
    gateway = {"host": host, "shop": pages, "console": pages}
    settings = Settings.model_validate({"gateway": gateway})
    state = ServerState(workspace.server, Ports(), workspace.root, {}, "shop")
    planned = serve.plan_gateway(state, replace(workspace, is_sample=is_sample), settings).settings
    found = {"shop": planned.shop.enabled, "console": planned.console.enabled}
    assert {name for name, how in found.items() if how == "always"} == opened
