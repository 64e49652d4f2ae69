"""A worker follows what is published; what cannot be read leaves it as it was."""

import threading
from dataclasses import replace

import pytest

from newshelf.errors import VersionMismatch, WeightsError
from newshelf.serving import shelf_reader
from newshelf.serving.live import LiveIndex
from newshelf.serving.rules import RuleSet
from newshelf.serving.segments import (
    CURRENT,
    Current,
    segment_path,
    write_current,
    write_popularity,
)
from newshelf.serving.shelf_reader import LINKS, ShelfReader, open_live
from newshelf.shelf.model import fold
from tests.unit.serving.live_catalog import Change, answers, archive_of, predictor_over, publish


@pytest.fixture(scope="module")
def archive():
    return archive_of(12, "pairs", 4)


@pytest.fixture
def reader(tmp_path, archive):
    return ShelfReader(tmp_path / "shelf", LiveIndex.of(archive))


def test_without_a_shelf_the_archive_answers(reader, archive):
    assert reader.read()
    assert reader.live.is_archive
    assert reader.live.version == archive.manifest.index_version


def test_what_is_published_is_read_once(reader, tmp_path, archive):
    first = publish(tmp_path / "shelf", archive, [[Change("i30")]], Current(seq=0))
    assert reader.read()
    live = reader.live
    assert live.rows(["i30", "i00", "i31"]).tolist() == [12, 0, -1]
    assert live.version == f"{archive.manifest.index_version}+1"
    assert reader.read()
    assert reader.live is live
    # The earlier segment is not read again, so it may be gone.
    segment_path(tmp_path / "shelf", first.segments[0]).unlink()
    publish(tmp_path / "shelf", archive, [[Change("i31"), Change("i00", removed=True)]], first)
    assert reader.read()
    assert reader.live.rows(["i30", "i00", "i31"]).tolist() == [12, -1, 13]
    assert live.rows(["i31"]).tolist() == [-1]
    assert reader.live.version.endswith("+3")


def test_merged_segments_replace_those_they_were_made_from(reader, tmp_path, archive):
    folder = tmp_path / "shelf"
    cuts = [[Change("i30")], [Change("i31")], [Change("i30", removed=True)]]
    current = publish(folder, archive, cuts, Current(seq=0))
    reader.read()
    first = current.segments[0]
    merged = publish(
        folder,
        archive,
        [[Change("i31"), Change("i30", removed=True)]],
        Current(seq=9, segments=(first,)),
    )
    segment_path(folder, first).unlink()
    assert reader.read()
    assert reader.live.rows(["i30", "i31"]).tolist() == [-1, 13]
    assert reader.live.current == merged


def test_popularity_is_added(reader, tmp_path, archive):
    folder = tmp_path / "shelf"
    current = publish(folder, archive, [[Change("i30", popularity=1.0)]], Current(seq=0))
    name = write_popularity(folder, {"i30": 100.0, "i05": 50.5, "gone": 7.0})
    write_current(folder, current.model_copy(update={"popularity": name}))
    reader.read()
    [answer] = answers(predictor_over(archive, reader.live, "pairs"), [{"history": [], "k": 2}])
    assert [item["id"] for item in answer["items"]] == ["i30", "i05"]
    total = archive.table.popularity.sum() + 151.5
    assert answer["items"][0]["score"] == pytest.approx(101 / total)


def hiding(folder, *ids: str) -> str:
    """Writes a rule that hides products, as the shelf process does."""
    when = {"column": "id", "in": list(ids)}
    rules = RuleSet.model_validate({"rule": [{"name": "a", "action": "hide", "when": when}]})
    name = f"rules-{len(ids)}.json"
    (folder / name).write_text(rules.model_dump_json())
    return name


def test_rules_apply_from_their_publication_on_until_they_are_gone(reader, tmp_path, archive):
    folder = tmp_path / "shelf"
    current = publish(folder, archive, [[Change("i30")]], Current(seq=0))
    rules = hiding(folder, "i05", "i31")
    write_current(folder, current.model_copy(update={"rules": rules}))

    def absent() -> list[str]:
        reader.read()
        predictor = predictor_over(archive, reader.live, "pairs")
        [answer] = answers(predictor, [{"history": [], "k": 20}])
        return sorted({"i05", "i30", "i31"} - {item["id"] for item in answer["items"]})

    assert absent() == ["i05", "i31"]
    masks = reader.live.rules.masks
    # A product that arrives is matched, and no other again.
    publish(folder, archive, [[Change("i31")]], current.model_copy(update={"rules": rules}))
    assert absent() == ["i05", "i31"]
    assert reader.live.rules.masks[:-1] == masks
    now = reader.live.current
    write_current(folder, now.model_copy(update={"rules": hiding(folder, "i30")}))
    assert absent() == ["i30"]
    write_current(folder, now.model_copy(update={"rules": None}))
    assert absent() == []
    (folder / "rules-9.json").write_text("{")
    write_current(folder, now.model_copy(update={"rules": "rules-9.json"}))
    assert not reader.read()
    assert absent() == []


@pytest.mark.parametrize("damage", ["current", "segment", "missing", "base", "popularity"])
def test_a_damaged_shelf_leaves_the_old_one(reader, tmp_path, archive, caplog, damage):
    folder = tmp_path / "shelf"
    good = publish(folder, archive, [[Change("i30")]], Current(seq=0))
    reader.read()
    bad = publish(folder, archive, [[Change("i31")]], good)
    segment = segment_path(folder, bad.segments[1])
    match damage:
        case "current":
            (folder / CURRENT).write_text("{")
        case "segment":
            segment.write_bytes(segment.read_bytes()[:-3])
        case "missing":
            segment.unlink()
        case "base":
            write_current(folder, bad.model_copy(update={"base": "base-7"}))
        case "popularity":
            write_current(folder, bad.model_copy(update={"popularity": "popularity-0.json"}))
    assert not reader.read()
    assert not reader.read()
    assert reader.live.rows(["i30", "i31"]).tolist() == [12, -1]
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1
    # The next publication is read.
    publish(folder, archive, [[Change("i32")]], good)
    assert reader.read()
    assert reader.live.rows(["i32"]).tolist() == [13]


def test_a_base_of_another_encoder_is_refused(tmp_path, archive):
    other = replace(
        archive, manifest=archive.manifest.model_copy(update={"encoder_version": "ba9876543210"})
    )
    current = publish(tmp_path, archive, [[Change("i30")]], Current(seq=0))
    fold(tmp_path, current, "base-1", LiveIndex.of(other))
    with pytest.raises(VersionMismatch, match="ba9876543210"):
        open_live(tmp_path, Current(seq=1, base="base-1"), LiveIndex.of(archive))


def test_a_base_without_its_links_is_refused(tmp_path, archive):
    current = publish(tmp_path, archive, [[Change("i30")]], Current(seq=0))
    fold(tmp_path, current, "base-1", LiveIndex.of(archive))
    folded = Current(seq=1, base="base-1")
    # Of an archive with fewer products.
    with pytest.raises(WeightsError, match=LINKS):
        open_live(tmp_path, folded, LiveIndex.of(archive_of(11, "pairs", 4)))
    (tmp_path / "base-1" / LINKS).unlink()
    with pytest.raises(WeightsError, match=LINKS):
        open_live(tmp_path, folded, LiveIndex.of(archive))


def test_publications_do_not_disturb_answers(tmp_path, archive, monkeypatch):
    """While one thread publishes and folds, another one always answers, each from one state."""
    monkeypatch.setattr(shelf_reader, "_POLL_S", 0.001)
    reader = ShelfReader(tmp_path, LiveIndex.of(archive))
    predictor = predictor_over(archive, reader.live, "pairs")
    predictor.shelf = reader
    predictor.follow()
    failed: list[object] = []
    done = threading.Event()

    def ask() -> None:
        bodies = [{"history": ["i01", "i30"], "k": 40}, {"history": [], "k": 40}]
        while not done.is_set():
            # All products of a publication, or none of them.
            for answer in answers(predictor, bodies):
                found = {item["id"] for item in answer["items"]} & {"i31", "i32"}
                if answer["status"] != 200 or len(found) == 1:
                    failed.append(answer)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        current = Current(seq=0)
        for turn in range(1, 13):
            removed = turn % 2 == 0
            cut = [Change(item, removed=removed, seed=turn) for item in ("i31", "i32")]
            current = publish(tmp_path, archive, [[Change("i30", seed=turn)], cut], current)
            if turn % 4 == 0:
                fold(tmp_path, current, f"base-{current.seq}", LiveIndex.of(archive))
                current = Current(seq=current.seq, base=f"base-{current.seq}")
                write_current(tmp_path, current)
        swapped = threading.Event()
        while not (reader.live.current and reader.live.current.seq == current.seq):
            swapped.wait(0.001)
    finally:
        done.set()
        asking.join()
        reader.stop()
    assert not failed
