import numpy as np
import pandas as pd
import pytest

from newshelf.attributes.build import HeadPredictions, build_knowledge, read_facts
from newshelf.attributes.lexicon import read_lexicon
from newshelf.attributes.title_tagger import Span
from newshelf.catalog.catalog import read_catalog


@pytest.fixture
def catalog(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    pd.DataFrame(
        [
            {"id": "1", "title": "Minimal jade ring", "color": "green/white", "brand": "Corvo"},
            {"id": "2", "title": "Lamp", "description": "A sleek navy lamp, not leather."},
            {"id": "3", "title": "极简红色翡翠戒指", "color": "红色"},
            {"id": "4", "title": "Thing"},
        ]
    ).to_csv(folder / "items.csv", index=False)
    return read_catalog(folder)


def known(folder, item):
    rows = read_facts(folder / "knowledge.parquet").to_pylist()
    return {
        (row["attribute"], row["value"]): row["source"] for row in rows if row["item_id"] == item
    }


def test_columns_titles_and_descriptions_are_read(catalog, tmp_path):
    knowledge = build_knowledge(catalog, tmp_path / "out")
    assert known(tmp_path / "out", "1") == {
        ("brand", "Corvo"): "stated",
        ("color", "green"): "stated",
        ("color", "white"): "stated",
        ("material", "jade"): "title",
        ("style", "minimal"): "title",
    }
    assert known(tmp_path / "out", "2") == {
        ("color", "navy"): "description",
        ("color", "blue"): "implied",
        ("style", "minimal"): "description",
    }
    assert known(tmp_path / "out", "3") == {
        ("color", "red"): "stated",
        ("material", "jade"): "title",
        ("style", "minimal"): "title",
    }
    assert known(tmp_path / "out", "4") == {}
    assert sum((f.attribute, f.source) == ("style", "title") for f in knowledge.facts) == 2
    assert read_lexicon(tmp_path / "out" / "lexicon.json").find("jade")


def test_spans_are_where_it_is_said(catalog, tmp_path):
    knowledge = build_knowledge(catalog, tmp_path / "out")
    titles = dict(zip(catalog.items["id"], catalog.items["title"], strict=True))
    said = [fact for fact in knowledge.facts if fact.source == "title"]
    assert {titles[fact.item_id][fact.start : fact.end] for fact in said} == {
        "Minimal",
        "jade",
        "极简",
        "翡翠",
    }


def head(rows=4) -> HeadPredictions:
    return HeadPredictions(
        attribute="color",
        classes=("grey", "navy blue"),
        logits=np.array([[0, 0], [5, 0], [0, 0], [0, 9]], dtype=np.float32)[:rows],
        held_out=np.full(rows, -1),
        applies_to=np.ones(rows, dtype=bool),
    )


def test_the_encoders_heads_speak_where_nobody_else_does(catalog, tmp_path):
    build_knowledge(catalog, tmp_path / "out", heads=[head()])
    assert known(tmp_path / "out", "4") == {
        ("color", "navy"): "picture+text model",
        ("color", "blue"): "implied",
    }
    # What contradicts is kept beside it, each with its own confidence.
    assert known(tmp_path / "out", "2")["color", "grey"] == "picture+text model"
    assert known(tmp_path / "out", "2")["color", "navy"] == "description"


def test_a_head_of_another_catalogue_is_refused(catalog, tmp_path):
    with pytest.raises(ValueError, match=r"3 products.* 4"):
        build_knowledge(catalog, tmp_path / "out", heads=[head(3)])
    assert not (tmp_path / "out").exists()


class FakeTagger:
    """Marks what a trained one might."""

    def find(self, title):
        marks = {"Minimal jade ring": [(8, 12, "MISC"), (13, 17, "HCCX")], "Thing": [(0, 5, "XH")]}
        return [(Span(*mark), 0.9) for mark in marks.get(title, [])]


def test_a_tagger_adds_products_brands_and_models(catalog, tmp_path):
    build_knowledge(catalog, tmp_path / "out", tagger=FakeTagger())
    assert known(tmp_path / "out", "4") == {("model", "thing"): "tagger"}
    first = known(tmp_path / "out", "1")
    assert first["product_type", "ring"] == "tagger"
    # What the lexicon understands is its own.
    assert first["material", "jade"] == "title"
    assert not any(attribute == "other" for attribute, _ in first)


def test_the_folder_is_replaced_as_a_whole(catalog, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    build_knowledge(catalog, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["knowledge.parquet", "lexicon.json"]
