"""Segments and CURRENT are read as they were written; damaged files are refused."""

from dataclasses import replace

import numpy as np
import pytest

from newshelf.errors import WeightsError
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.segments import (
    CURRENT,
    Current,
    Segment,
    SegmentShape,
    _Columns,
    read_current,
    read_popularity,
    read_segment,
    segment_path,
    write_current,
    write_popularity,
    write_segment,
)

SHAPE = SegmentShape(embedding=8, vector=4, trained=30, nearest=5)


def columns_of(ids: list[str]) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {name: [None] * len(ids) for name in INDEX_COLUMNS}
    return {**columns, "id": list(ids), "popularity": [2.5] * len(ids)}


@pytest.fixture
def segment(unit_rows) -> Segment:
    columns = columns_of(["new", "i03"])
    columns["price"] = [12.5, None]
    columns["title"] = ["Jade ring", "戒指"]
    return Segment(
        columns=columns,
        extras=[{"season": "summer", "pack": 3}, {}],
        knowledge=[(0, "style", "minimal", 0.9)],
        embeddings=unit_rows(2, 8),
        vectors=unit_rows(2, 4, 1),
        origin=np.array([-1, 3]),
        nearest=np.arange(10).reshape(2, 5),
        shares=np.full((2, 5), 0.2, dtype=np.float32),
        removed=["i04"],
    )


def test_a_segment_is_read_as_it_was_written(tmp_path, segment):
    write_segment(tmp_path, "seg-7", segment, SHAPE)
    read = read_segment(tmp_path, "seg-7", SHAPE)
    assert read.columns == segment.columns
    assert (read.extras, read.knowledge, read.removed) == (
        segment.extras,
        segment.knowledge,
        segment.removed,
    )
    for name, array in segment.arrays().items():
        assert np.array_equal(getattr(read, name), array), name
    assert [path.name for path in tmp_path.iterdir()] == ["seg-7.safetensors"]


def test_a_segment_may_only_remove(tmp_path, segment):
    none = np.zeros(0, dtype=np.int64)
    only = Segment(
        columns_of([]),
        [],
        [],
        segment.embeddings[none],
        None,
        none,
        segment.nearest[none],
        segment.shares[none],
        ["i00"],
    )
    shape = replace(SHAPE, vector=None)
    write_segment(tmp_path, "seg-1", only, shape)
    read = read_segment(tmp_path, "seg-1", shape)
    assert (len(read), read.removed, read.vectors) == (0, ["i00"], None)


def test_the_columns_are_those_of_an_index():
    assert tuple(_Columns.model_fields) == INDEX_COLUMNS


@pytest.mark.parametrize(
    "change",
    [
        {"origin": np.array([-1, 30])},
        {"origin": np.array([-2, 3])},
        {"nearest": np.full((2, 5), 31)},
        {"nearest": np.zeros((2, 4), dtype=np.int64)},
        {"embeddings": np.zeros((3, 8), dtype=np.float32)},
        {"embeddings": np.full((2, 8), np.nan, dtype=np.float32)},
        {"vectors": None},
        {"removed": ["new"]},
        {"extras": [{}]},
        {"knowledge": [(2, "style", "minimal", 0.9)]},
        {"columns": columns_of(["a", "a"])},
        {"columns": {**columns_of(["a", "b"]), "price": [float("nan"), 1.0]}},
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, segment, change):
    with pytest.raises(ValueError, match=r"shape|finite|beyond|both|differ|repeats|row|price"):
        write_segment(tmp_path, "seg-1", replace(segment, **change), SHAPE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"trained": 3}, {"embedding": 9}, {"vector": None}])
def test_a_segment_of_another_model_is_refused(tmp_path, segment, change):
    write_segment(tmp_path, "seg-1", segment, SHAPE)
    with pytest.raises(WeightsError, match="seg-1"):
        read_segment(tmp_path, "seg-1", replace(SHAPE, **change))


@pytest.mark.parametrize("kept", [0, 7, 200, -1])
def test_a_damaged_segment_is_refused(tmp_path, segment, kept):
    write_segment(tmp_path, "seg-1", segment, SHAPE)
    path = segment_path(tmp_path, "seg-1")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="seg-1"):
        read_segment(tmp_path, "seg-1", SHAPE)


def test_a_missing_segment_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="seg-1"):
        read_segment(tmp_path, "seg-1", SHAPE)


def test_current_is_replaced(tmp_path):
    assert read_current(tmp_path) is None
    for current in (Current(seq=1), Current(seq=9, base="base-4", segments=("seg-5", "seg-9"))):
        write_current(tmp_path, current)
        assert read_current(tmp_path) == current


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"format": 2, "seq": 1}',
        '{"seq": -1}',
        '{"seq": 1, "segments": ["seg-../../etc"]}',
        '{"seq": 1, "base": "../base-1"}',
        '{"seq": 1, "surprise": 1}',
    ],
)
def test_a_damaged_current_is_refused(tmp_path, text):
    (tmp_path / CURRENT).write_text(text)
    with pytest.raises(WeightsError, match=CURRENT):
        read_current(tmp_path)


def test_popularity_is_named_by_its_content(tmp_path):
    name = write_popularity(tmp_path, {"b": 1.5, "a": 2.0})
    assert name == write_popularity(tmp_path, {"a": 2.0, "b": 1.5})
    assert Current(seq=1, popularity=name).popularity == name
    assert read_popularity(tmp_path, name) == {"a": 2.0, "b": 1.5}
    (tmp_path / name).write_text('{"a": -1}')
    with pytest.raises(WeightsError):
        read_popularity(tmp_path, name)
