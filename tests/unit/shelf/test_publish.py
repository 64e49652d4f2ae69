"""Publishing, merging, folding and clean-up of segments."""

from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.rules import RuleSet, read_rules
from newshelf.serving.segments import Current, Segment, SegmentShape, read_current, read_segment
from newshelf.shelf import publish
from newshelf.shelf.publish import Publisher, merge_segments
from tests.unit.shelf.helpers import published

SHAPE = SegmentShape(embedding=4, vector=2, trained=9, nearest=3)


def segment(puts: dict[str, float], removed: list[str] | None = None) -> Segment:
    """Products with these prices, which their vectors repeat."""
    prices = np.array([*puts.values()], dtype=np.float32)
    count = len(puts)
    columns: dict[str, list[object]] = {name: [None] * count for name in INDEX_COLUMNS}
    columns |= {"id": [*puts], "price": [*puts.values()], "popularity": [0.0] * count}
    return Segment(
        columns=columns,
        extras=[{"price": price} for price in puts.values()],
        knowledge=[(row, "color", str(price), 1.0) for row, price in enumerate(puts.values())],
        embeddings=np.tile(prices[:, None], 4),
        vectors=np.tile(prices[:, None], 2),
        origin=np.full(count, -1),
        nearest=np.zeros((count, 3), dtype=np.int64),
        shares=np.tile(prices[:, None], 3),
        removed=removed or [],
    )


def segment_changes(writer: Publisher) -> set[object]:
    last = read_segment(writer.folder, writer.current.segments[-1], SHAPE)
    return {*last.columns["id"], *last.removed}


class Later(Executor):
    """Runs what was submitted when the test says so."""

    def __init__(self) -> None:
        self.works: list[tuple[Future, object, tuple]] = []

    def submit(self, fn, /, *arguments, **_):
        future: Future = Future()
        self.works.append((future, fn, arguments))
        return future

    def run(self) -> None:
        future, work, arguments = self.works.pop(0)
        try:
            future.set_result(work(*arguments))
        except OSError as error:
            future.set_exception(error)


def no_fold(*_: object) -> None:
    raise AssertionError


def publisher(folder: Path, fold=no_fold, executor=None, fold_rows: int = 5) -> Publisher:
    return Publisher(folder, SHAPE, fold=fold, executor=executor or Later(), fold_rows=fold_rows)


def prices(folder: Path) -> dict[str, object]:
    return {item: columns["price"] for item, columns in published(folder, SHAPE)[0].items()}


IDS = st.sampled_from("abcdefgh")
CHANGES = st.lists(
    st.tuples(st.dictionaries(IDS, st.integers(0, 99).map(float), max_size=3), st.sets(IDS)),
    max_size=12,
)


@given(changes=CHANGES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_merged_segments_change_an_index_as_all_of_them(
    tmp_path_factory, monkeypatch, changes
) -> None:
    folder = tmp_path_factory.mktemp("shelf")
    monkeypatch.setattr(publish, "_MOST_SEGMENTS", 3)
    writer, expected, gone = publisher(folder), {}, set()
    for seq, (puts, ids) in enumerate(changes, start=1):
        removed = ids - puts.keys()
        writer.add(segment(puts, sorted(removed)), seq)
        # A worker that knows all but the last segment reads only the changes in it.
        assert segment_changes(writer) == {*puts, *removed}
        expected = {**expected, **puts}
        for item in removed:
            expected.pop(item, None)
        gone = (gone | removed) - puts.keys()
    found, removals = published(folder, SHAPE)
    assert {item: columns["price"] for item, columns in found.items()} == expected
    assert gone <= removals
    reopened = publisher(folder)
    assert reopened.current == writer.current
    assert len(writer.current.segments) <= 5


def test_every_part_of_a_row_follows_it_through_a_merge() -> None:
    merged = merge_segments(
        segment({"a": 1, "b": 2, "c": 3}, ["x"]), segment({"b": 5, "x": 6}, ["a"])
    )
    merged.check(SHAPE)
    assert merged.columns["id"] == ["c", "b", "x"]
    assert merged.columns["price"] == [3, 5, 6]
    assert merged.embeddings[:, 0].tolist() == merged.shares[:, 0].tolist() == [3, 5, 6]
    assert [one["price"] for one in merged.extras] == [3, 5, 6]
    assert [(row, value) for row, _, value, _ in merged.knowledge] == [(0, "3"), (1, "5"), (2, "6")]
    assert merged.removed == ["a"]


def test_a_segment_that_is_merged_with_no_other_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_MOST_SEGMENTS", 1)
    writer = publisher(tmp_path)
    writer.add(segment(dict.fromkeys("abcdef", 1.0)), 6)
    first = writer.current.segments
    writer.add(segment({"a": 2.0}), 7)
    assert writer.current.segments[:1] == first
    assert prices(tmp_path) == {**dict.fromkeys("bcdef", 1.0), "a": 2.0}


def test_a_large_delta_is_folded_while_changes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = Later()

    def fold(folder: Path, current: Current, name: str) -> None:
        assert len(current.segments) == 1
        (folder / name).mkdir()

    writer = publisher(tmp_path, fold, executor)
    writer.fold_if_large()
    assert not executor.works
    writer.add(segment(dict.fromkeys("abcdef", 1.0)), 6)
    writer.fold_if_large()
    folded = writer.current.segments
    # What is being folded is not merged.
    monkeypatch.setattr(publish, "_MOST_SEGMENTS", 1)
    writer.add(segment(dict.fromkeys("abcdef", 2.0)), 12)
    writer.fold_if_large()
    assert writer.current.segments[:1] == folded
    executor.run()
    writer.fold_if_large()
    current = read_current(tmp_path)
    assert current == writer.current
    assert (current.base, len(current.segments)) == ("base-6", 1)
    assert prices(tmp_path) == dict.fromkeys("abcdef", 2.0)


def test_a_failed_fold_leaves_what_is_current(tmp_path: Path) -> None:
    executor = Later()

    def fold(*_: object) -> None:
        raise OSError("the disk is full")

    writer = publisher(tmp_path, fold, executor)
    writer.add(segment(dict.fromkeys("abcdef", 1.0)), 6)
    before = writer.current
    writer.fold_if_large()
    executor.run()
    writer.fold_if_large()
    assert writer.current == before
    writer.fold_if_large()
    assert not executor.works


def test_files_are_removed_after_a_while_and_two_bases_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("base-1", "base-2", "base-3", ".base-9.half"):
        (tmp_path / name).mkdir()
    writer = publisher(tmp_path)
    writer.add(segment({"a": 1}), 1)
    writer.add(segment({"a": 2}), 2)
    writer.set_popularity({"a": 1.5})
    writer.clean()
    assert len([*tmp_path.glob("seg-*")]) == 2
    monkeypatch.setattr(publish, "_GRACE_S", 0)
    writer.clean()
    names = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    current = writer.current
    assert names == {"CURRENT", "base-2", "base-3", *current.segments, current.popularity[:-5]}


@pytest.mark.parametrize("what", ["CURRENT", "segment", "base"])
def test_a_damaged_shelf_is_begun_again(tmp_path: Path, what: str) -> None:
    writer = publisher(tmp_path)
    writer.add(segment({"a": 1}), 7)
    if what == "base":
        text = (tmp_path / "CURRENT").read_text().replace('"base":null', '"base":"base-3"')
        (tmp_path / "CURRENT").write_text(text)
    else:
        (path,) = tmp_path.glob("CURRENT" if what == "CURRENT" else "seg-*")
        path.write_bytes(b"damaged")
    assert publisher(tmp_path).current == Current(seq=0)


def test_rules_are_published_until_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nname = "sale"\naction = "hide"\nwhen = {column = "price", max = 5}')
    rules = read_rules(file)
    writer = publisher(tmp_path / "shelf")
    writer.set_rules(rules)
    name = read_current(tmp_path / "shelf").rules
    text = (tmp_path / "shelf" / name).read_bytes()
    assert RuleSet.model_validate_json(text) == rules
    writer.add(segment({"a": 1}), 1)
    assert read_current(tmp_path / "shelf").rules == name
    writer.set_rules(None)
    assert read_current(tmp_path / "shelf").rules is None


def test_popularity_is_named_only_when_there_is_any(tmp_path: Path) -> None:
    writer = publisher(tmp_path)
    writer.set_popularity({})
    assert read_current(tmp_path) is None
    writer.set_popularity({"a": 2})
    name = read_current(tmp_path).popularity
    writer.set_popularity({"a": 2})
    assert read_current(tmp_path).popularity == name
