import pytest

from export.index import build_index
from newshelf.attributes.build import build_knowledge, write_facts
from newshelf.attributes.lexicon import Fact, packaged_lexicon
from newshelf.errors import CatalogError, VersionMismatch
from newshelf.serving.index import load_index
from newshelf.serving.item_table import allowed_mask
from newshelf.serving.schemas import Filters
from tests.unit.export.catalogs import write_catalog
from tests.unit.export.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    return write_tiny_checkpoint(tmp_path / "checkpoint")


def test_what_training_found_reaches_the_index(tmp_path, checkpoint):
    catalog = write_catalog(tmp_path / "c")
    catalog.items.loc[2, "title"] = "A minimalist navy lamp"
    build_knowledge(catalog, checkpoint / "knowledge")
    manifest = build_index(checkpoint, catalog, tmp_path / "index")
    assert manifest.knowledge == 3
    table = load_index(tmp_path / "index", encoder_version=manifest.encoder_version).table
    for given in ({"style": "minimal"}, {"color": "blue"}, {"color": "navy"}):
        mask = allowed_mask(table, Filters.model_validate(given))
        assert [table.id[row] for row in mask.nonzero()[0]] == ["i2"]


def test_a_checkpoint_without_knowledge_makes_an_index_without(tmp_path, checkpoint):
    manifest = build_index(checkpoint, write_catalog(tmp_path / "c"), tmp_path / "index")
    assert manifest.knowledge is None


def test_what_serving_has_no_use_for_stays_out(tmp_path, checkpoint):
    folder = checkpoint / "knowledge"
    facts = [Fact("i1", "model", "x7", "tagger", 0.9), Fact("i1", "color", "red", "tagger", 0.9)]
    write_facts(facts, folder / "knowledge.parquet")
    packaged_lexicon().write(folder / "lexicon.json")
    catalog = write_catalog(tmp_path / "c")
    assert build_index(checkpoint, catalog, tmp_path / "index").knowledge == 1


def test_knowledge_of_other_products_is_refused(tmp_path, checkpoint):
    folder = checkpoint / "knowledge"
    write_facts([Fact("stranger", "color", "red", "title", 0.9)], folder / "knowledge.parquet")
    packaged_lexicon().write(folder / "lexicon.json")
    with pytest.raises(VersionMismatch, match="'stranger'"):
        build_index(checkpoint, write_catalog(tmp_path / "c"), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_damaged_knowledge_is_refused(tmp_path, checkpoint):
    (checkpoint / "knowledge").mkdir()
    with pytest.raises(CatalogError, match=r"knowledge\.parquet cannot be read"):
        build_index(checkpoint, write_catalog(tmp_path / "c"), tmp_path / "index")
