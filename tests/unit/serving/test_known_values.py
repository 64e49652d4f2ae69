"""What is known beyond the columns: in filters, in reasons, and in the index's files."""

import json

import numpy as np
import pytest

from newshelf.attributes.lexicon import packaged_lexicon
from newshelf.catalog.schema import Product
from newshelf.errors import VersionMismatch, WeightsError
from newshelf.serving.index import IndexKnowledge, load_index
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import ItemTable, KnownValues, TextReader, allowed_mask
from newshelf.serving.kinds import like_history
from newshelf.serving.resolve import Facts, product_facts, row_facts
from newshelf.serving.schemas import Filters

READER = TextReader(packaged_lexicon(), 0.6)
STATEMENTS = [
    (4, "color", "navy", 0.9),
    (4, "color", "blue", 0.85),
    (4, "style", "minimal", 0.8),
    (5, "style", "minimal", 0.7),
    (5, "style", "boho", 0.5),
    (6, "product_type", "Home > Rugs", 0.9),
    (7, "brand", "Corvo", 0.9),
    (8, "material", "jade", 0.6),
]


def passed(table: ItemTable, **filters) -> list[str]:
    filters = {"availability": ["in_stock", "out_of_stock", "preorder"], **filters}
    mask = allowed_mask(table, Filters.model_validate(filters))
    return [table.id[row] for row in np.flatnonzero(mask)]


@pytest.fixture
def written(tmp_path, frame, unit_rows):
    def write(rows=STATEMENTS, **changed):
        arguments = {
            "encoder_version": "e" * 12,
            "items": frame,
            "embeddings": unit_rows(30, 16, 1),
            "vectors": None,
            "knowledge": None if rows is None else IndexKnowledge(rows, packaged_lexicon()),
            **changed,
        }
        return tmp_path / "index", write_index(tmp_path / "index", **arguments)

    return write


@pytest.fixture
def table(written):
    return load_index(written()[0], encoder_version="e" * 12).table


def test_filters_match_what_is_known_beside_what_is_stated(table, frame):
    stated = frame.loc[frame["color"].fillna("").str.lower().str.contains("red"), "id"].tolist()
    assert passed(table, color="red") == passed(table, color="红色") == stated
    assert passed(table, color="Navy") == passed(table, color="Navy Blue") == ["i04"]
    assert passed(table, color="blue") == ["i04"]
    assert passed(table, style=["Minimal"]) == passed(table, style="极简") == ["i04", "i05"]
    assert passed(table, style="boho") == []
    assert passed(table, brand="corvo") == ["i07"]
    assert passed(table, product_type="home > rugs") == ["i06"]
    assert "i06" in passed(table, product_type="Home")
    assert set(passed(table, material="jade")) == {"i00", "i01", "i02", "i03", "i04", "i05", "i08"}


def test_the_least_confidence_is_a_setting(written):
    folder, _ = written()
    for least, minimal in ((0.0, ["i04", "i05"]), (0.75, ["i04"]), (1.0, [])):
        table = load_index(folder, encoder_version="e" * 12, min_confidence=least).table
        assert passed(table, style="minimal") == minimal


def test_an_inline_product_is_read_as_it_comes():
    products = [
        Product(id="a", title="Minimalist oak shelf in 红色"),
        Product(id="b", title="Shelf", color="Navy Blue"),
        Product(id="c", title="Shelf without oak"),
    ]
    table = ItemTable.from_products(products, READER)
    assert passed(table, style="minimal") == ["a"]
    assert passed(table, material="wood") == ["a"]
    assert passed(table, color="red") == ["a"]
    assert passed(table, color="blue") == ["b"]
    plain = ItemTable.from_products(products)
    assert passed(plain, color="navy blue") == ["b"]
    assert passed(plain, color="blue") == passed(plain, style="minimal") == []


def test_a_reason_names_shared_style_and_what_texts_say(table):
    item = row_facts(table, 4)
    liked = product_facts(Product(title="Minimal navy jade bangle"), READER)
    reason = like_history(item, liked, packaged_lexicon())
    assert reason == (
        "like ‘Minimal navy jade bangle’ in your history: "
        "same material jade, same colour navy, same minimal style"
    )


def facts(**known) -> Facts:
    return Facts("x", None, None, None, None, None, known)


def test_values_that_another_one_implies_are_not_named():
    one, other = facts(color=["blue", "navy"]), facts(color=["navy", "blue"])
    assert like_history(one, other, packaged_lexicon()).endswith(": same colour navy")


def test_a_stated_value_is_spelled_as_stated_and_named_once():
    one = Facts("x", None, None, None, "Navy Blue", None, {"color": ["navy", "blue"]})
    other = Facts("y", None, None, None, "藏青", None, {"color": ["navy", "blue"]})
    assert like_history(one, other, packaged_lexicon()).endswith(": same colour navy blue")


def test_at_most_two_values_of_an_attribute_are_named():
    one = facts(style=["minimal", "boho", "classic"])
    assert like_history(one, one).endswith(": same minimal style, same boho style")


def test_types_and_brands_that_are_only_known_are_named():
    one = facts(product_type=["Home", "Home > Rugs"], brand=["Corvo"])
    other = facts(product_type=["home > rugs", "home"], brand=["corvo"])
    assert like_history(one, other).endswith(": same type Rugs, same brand Corvo")
    stated = Facts("y", None, "Home > Beds", "Fjord", None, None, {"brand": ["Corvo"]})
    assert like_history(stated, one) == "like ‘x’ in your history"


def test_an_index_made_before_there_was_knowledge_knows_its_columns(written):
    folder, _ = written(rows=None)
    manifest = json.loads((folder / "index.json").read_text())
    del manifest["knowledge"]
    (folder / "index.json").write_text(json.dumps(manifest))
    index = load_index(folder, encoder_version="e" * 12)
    assert index.manifest.knowledge is None
    assert passed(index.table, style="minimal") == []
    assert passed(index.table, color="yellow")
    assert not (folder / "lexicon.json").exists()


def test_knowledge_is_part_of_the_version(written):
    versions = {
        written(rows)[1].index_version
        for rows in (None, [], STATEMENTS, [*STATEMENTS[:-1], (8, "material", "jade", 0.7)])
    }
    assert len(versions) == 4


def test_no_statements_are_still_knowledge(written):
    folder, manifest = written([])
    assert manifest.knowledge == 0
    table = load_index(folder, encoder_version="e" * 12).table
    # The lexicon is there, and filters are understood by it.
    assert passed(table, color="红色") == passed(table, color="red") != []


@pytest.mark.parametrize("row", [-1, 30])
def test_a_statement_of_no_item_is_refused(written, row):
    with pytest.raises(ValueError, match=f"said of row {row} of 30 items"):
        written([(row, "color", "red", 0.9)])


def test_missing_or_mixed_files_are_told(written):
    folder, _ = written()
    (folder / "lexicon.json").unlink()
    with pytest.raises(WeightsError, match=r"lexicon\.json"):
        load_index(folder, encoder_version="e" * 12)
    folder, _ = written(STATEMENTS[:3])
    items = (folder / "items.safetensors").read_bytes()
    folder, _ = written()
    (folder / "items.safetensors").write_bytes(items)
    with pytest.raises(VersionMismatch, match="3 statements where its manifest says 30 and 8"):
        load_index(folder, encoder_version="e" * 12)


def test_statements_are_kept_for_the_next_index(table):
    assert [(*one[:3], round(one[3], 6)) for one in table.known.statements()] == sorted(
        STATEMENTS, key=lambda one: (one[0], -one[3])
    )


def test_values_come_surest_first():
    known = KnownValues.from_rows(
        [(0, "style", "boho", 0.7), (0, "style", "minimal", 0.9), (1, "style", "boho", 0.3)], READER
    )
    assert known.at(0)["style"] == ["minimal", "boho"]
    assert "color" not in known.at(0)
    assert "style" not in known.at(1)
