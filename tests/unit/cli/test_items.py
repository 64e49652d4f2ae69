"""The verbs of live products."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from newshelf.cli import items
from newshelf.cli.app import app
from newshelf.server.program import ShelfPlan
from newshelf.store.store import EventStore

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def store(store_url: str) -> Iterator[EventStore]:
    with EventStore.open(store_url) as opened:
        yield opened


@pytest.fixture
def run(tmp_path: Path, store: EventStore) -> Run:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    plan = ShelfPlan(
        store_url=f"sqlite:///{tmp_path}/events.db",
        torchserve=tmp_path,
        model_store=tmp_path,
        folder=tmp_path,
        max_picture_bytes=1_000,
    )
    (workspace / "shelf.json").write_text(plan.model_dump_json())

    def call(*words: str | Path) -> tuple[int, str]:
        given = ["items", *map(str, words), "--workspace", str(workspace)]
        done = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
        return done.exit_code, " ".join(done.output.split())

    return call


def write(path: Path, **columns: list[object]) -> Path:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_a_file_is_imported_with_pictures_and_a_report(
    run: Run, store: EventStore, tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    file = write(
        shop / "new.csv",
        id=["ring", "lamp", "ring"],
        title=["Ring", "Lamp", "Twice"],
        image_link=["ring.png", "lamp.bmp", None],
        price=[3, "dear", 4],
    )
    Image.new("RGB", (4, 4)).save(shop / "ring.png")
    code, text = run("import", file)
    assert code == 0, text
    assert "3 rows read, 2 kept" in text
    assert "2 products stored, 2 of them changed" in text
    found = store.items.get(["ring", "lamp"])
    digest = (found["ring"].picture or "").removeprefix("sha256:")
    assert store.items.picture(digest) == (shop / "ring.png").read_bytes()
    assert found["lamp"].columns.price is None
    assert "2 products stored, 0 of them changed" in run("import", file)[1]


def test_a_large_picture_is_left_out_and_told(run: Run, store: EventStore, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    file = write(shop / "items.csv", id=["ring"], title=["Ring"], image_link=["ring.png"])
    Image.effect_noise((90, 90), 99).save(shop / "ring.png")
    _, text = run("import", file)
    assert "ring.png has" in text
    assert store.items.get(["ring"])["ring"].picture is None


def test_products_are_listed_shown_and_deleted(run: Run, store: EventStore, tmp_path: Path) -> None:
    run("import", write(tmp_path / "items.csv", id=["ring", "lamp"], title=["Ring", "Lamp"]))
    assert all(name in run("list")[1] for name in ("ring", "lamp"))
    assert "lamp" not in run("list", "--after", "lamp")[1].replace("Lamp", "")
    store.items.published("here", "2.0", 0)
    assert "2.0: stored" in run("show", "ring")[1]
    assert run("delete", "ring") == (0, "ring is deleted (revision 2)")
    assert "ring" not in run("list")[1]
    assert "deleted" in run("show", "ring")[1]
    for verb in ("show", "delete"):
        code, text = run(verb, "no-such")
        assert code == 1
        assert "no-such" in text


def test_files_of_a_folder_are_followed_once_they_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    monkeypatch.setattr(items.time, "sleep", lambda _s: looked.set())
    write(tmp_path / "events.csv", user_id=[1])
    (tmp_path / "notes.md").touch()
    first = write(tmp_path / "a.csv", id=["ring"])
    files = items._complete_files(tmp_path)
    assert next(files) == first
    second = write(tmp_path / "b.csv.gz", id=["lamp"])
    assert next(files) == second
    write(first, id=["ring", "shirt"])
    assert next(files) == first


def test_without_a_shelf_the_error_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["items", "list", "--workspace", str(tmp_path)])
    assert done.exit_code == 1
    assert "./run serve" in done.output
