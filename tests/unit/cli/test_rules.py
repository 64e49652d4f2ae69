"""The verbs of rules: mistakes with their lines, and answers side by side."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.segments import (
    Current,
    Segment,
    SegmentShape,
    write_current,
    write_segment,
)
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.served_model import VERSION
from tests.unit.cli.verbs import Run, verbs_of

RULES = """
[[rule]]
name = "no rings"
action = "hide"
placements = ["home"]
when = {column = "product_type", below = "Jewellery > Rings"}

[[rule]]
name = "the lamp"
action = "pin"
position = 2
when = {column = "id", is = "i29"}
"""


@pytest.fixture
def run(tmp_path: Path, archive: Path, empty_store: Path) -> Run:
    calls = verbs_of("rules", tmp_path, "")
    folder = tmp_path / "workspace"
    (folder / "archive").mkdir()
    (folder / "archive" / "archives.json").write_text(json.dumps([str(archive)]))
    (folder / "gateway").mkdir()
    shutil.copyfile(empty_store, folder / "gateway" / "events.db")
    return calls


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def test_rules_are_checked_and_their_products_counted(run: Run, rules: Path) -> None:
    code, output = run("check", rules)
    assert code == 0, output
    assert "no rings │ hide │ home │ 10" in output
    assert "the lamp │ pin │ all │ 1" in output
    assert "has no mistake" in output


def test_products_are_those_of_the_live_shelf(run: Run, rules: Path, tmp_path: Path) -> None:
    folder, none = tmp_path / "workspace" / "shelf" / VERSION, np.zeros((0, 512), dtype=np.float32)
    rows = np.zeros(0, dtype=np.int64)
    gone = Segment(
        columns={name: [] for name in INDEX_COLUMNS},
        extras=[],
        knowledge=[],
        embeddings=none,
        vectors=none[:, :16],
        origin=rows,
        nearest=rows.reshape(0, 0),
        shares=none[:, :0],
        removed=["i00", "i01"],
    )
    folder.mkdir(parents=True)
    write_segment(
        folder, "seg-1", gone, SegmentShape(embedding=512, vector=16, trained=30, nearest=0)
    )
    write_current(folder, Current(seq=2, segments=("seg-1",)))
    assert "no rings │ hide │ home │ 9" in run("check", rules)[1]


def test_a_mistake_is_reported_with_its_line(run: Run, rules: Path) -> None:
    rules.write_text(RULES.replace('"product_type"', '"category"'))
    code, output = run("check", rules)
    assert code == 1
    assert "rules.toml, line 6: rule" in output
    assert "unknown column 'category'; there is id, title, product_type" in output


def test_the_answers_stand_side_by_side(run: Run, rules: Path) -> None:
    code, output = run("preview", rules, "--placement", "home", "--history", "i00,i01")
    assert code == 0, output
    assert "home, history of 2" in output
    assert output.count("(gone)") > 1
    assert "pinned" in output
    assert "the lamp" in output
    elsewhere = run("preview", rules, "--history", "i00,i01")[1]
    # The pinned product takes the last one's place.
    assert elsewhere.count("(gone)") == 1


def test_a_shopper_s_history_is_the_store_s(run: Run, rules: Path, tmp_path: Path) -> None:
    with EventStore.open(f"sqlite:///{tmp_path}/workspace/gateway/events.db") as store:
        clicks = [
            Feedback(
                event_id=item, event_type="click", item_id=item, at=datetime.now(UTC), unit="ann"
            )
            for item in ("i02", "i05", "i02")
        ]
        store.write(WriteBatch(feedback=clicks))
    output = run("preview", rules, "--unit", "ann")[1]
    assert "history of 2" in output


def test_nothing_is_previewed_before_there_is_an_archive(run: Run, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "workspace" / "archive")
    code, output = run("preview", "--history", "i00")
    assert (code, "has no archive yet" in output) == (1, True)
    assert run("preview", "--placement", "nowhere")[0] == 1
