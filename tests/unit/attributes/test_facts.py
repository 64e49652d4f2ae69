import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newshelf.attributes.build import read_facts, write_facts
from newshelf.attributes.lexicon import Fact, merge
from newshelf.errors import CatalogError

FACTS = [
    Fact("i1", "color", "red", "title", 0.8, 0, 3),
    Fact("i1", "style", "minimal", "description", 0.68, 10, 17),
    Fact("i2", "brand", "Corvo", "stated", 1.0),
]


def test_the_most_confident_source_of_a_value_wins():
    merged = merge(
        [
            Fact("a", "color", "red", "title", 0.8, 0, 3),
            Fact("a", "color", "Red", "stated", 1.0),
            Fact("a", "color", "red", "picture+text model", 0.9),
            Fact("a", "color", "blue", "picture+text model", 0.5),
            Fact("b", "color", "red", "title", 0.7),
        ]
    )
    assert [(f.item_id, f.value, f.source, f.confidence) for f in merged] == [
        ("a", "Red", "stated", 1.0),
        ("a", "blue", "picture+text model", 0.5),
        ("b", "red", "title", 0.7),
    ]


def test_what_contradicts_a_stated_single_value_is_kept_and_doubted():
    merged = merge(
        [
            Fact("a", "brand", "Corvo", "stated", 1.0),
            Fact("a", "brand", "Next", "title", 0.9),
            Fact("a", "product_type", "Home > Beds", "stated", 1.0),
            Fact("a", "product_type", "Home", "title", 0.8),
            Fact("a", "product_type", "Home > Lamps", "title", 0.8),
            Fact("b", "brand", "Next", "title", 0.9),
        ]
    )
    assert {(f.item_id, f.value): f.confidence for f in merged} == {
        ("a", "Corvo"): 1.0,
        ("a", "Next"): 0.45,
        ("a", "Home > Beds"): 1.0,
        ("a", "Home"): 0.8,
        ("a", "Home > Lamps"): 0.4,
        ("b", "Next"): 0.9,
    }


def test_merging_does_not_depend_on_the_order_of_sources():
    facts = [
        *FACTS,
        Fact("i1", "color", "red", "stated", 1.0),
        Fact("i1", "color", "b", "title", 1),
    ]
    assert set(merge(facts)) == set(merge(reversed(facts)))
    assert merge([]) == []


def test_what_is_written_is_read(tmp_path):
    write_facts(FACTS, tmp_path / "k.parquet")
    table = read_facts(tmp_path / "k.parquet")
    assert [Fact(*row.values()) for row in table.to_pylist()] == FACTS
    write_facts([], tmp_path / "k.parquet")
    assert read_facts(tmp_path / "k.parquet").num_rows == 0
    assert [path.name for path in tmp_path.iterdir()] == ["k.parquet"]


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["value"]),
        lambda table: table.set_column(4, "confidence", pa.array(["1", "1", "1"])),
    ],
)
def test_a_table_of_another_version_is_refused(tmp_path, change):
    path = tmp_path / "k.parquet"
    write_facts(FACTS, path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(CatalogError, match=r"k\.parquet has other columns"):
        read_facts(path)


def test_a_file_that_is_no_table_is_named(tmp_path):
    for body in (None, b"nonsense"):
        if body is not None:
            (tmp_path / "k.parquet").write_bytes(body)
        with pytest.raises(CatalogError, match=r"k\.parquet cannot be read"):
            read_facts(tmp_path / "k.parquet")
