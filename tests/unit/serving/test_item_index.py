import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from newshelf.errors import VersionMismatch, WeightsError
from newshelf.nn.blend import Blend
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.spec import BlendSpec
from newshelf.serving.index import load_index, read_columns
from newshelf.serving.index_write import write_index
from newshelf.serving.item_table import INDEX_COLUMNS
from newshelf.serving.search.ann import AnnSearch
from newshelf.serving.search.base import PlainSearch, top_rows
from newshelf.serving.search.exact import Int8Search
from tests.unit.export.tiny_checkpoint import BLEND_WEIGHTS, same_blend, tiny_blend


@pytest.fixture
def written(tmp_path, frame, unit_rows):
    def write(name="index", **changed):
        arguments = {
            "encoder_version": "e" * 12,
            "items": frame,
            "embeddings": unit_rows(30, 16, 1),
            "vectors": unit_rows(30, 4, 2),
            **changed,
        }
        return tmp_path / name, write_index(tmp_path / name, **arguments)

    return write


def test_what_is_written_is_loaded(written, frame, unit_rows):
    folder, manifest = written()
    index = load_index(folder, encoder_version="e" * 12)
    assert index.manifest == manifest
    assert (manifest.items, manifest.embedding, manifest.vector) == (30, 16, 4)
    np.testing.assert_array_equal(index.embeddings, unit_rows(30, 16, 1))
    np.testing.assert_array_equal(index.vectors, unit_rows(30, 4, 2))
    table = index.table
    assert list(table.id) == frame["id"].tolist()
    assert table.color[4] is None
    assert np.isnan(table.price[7])
    assert table.created_at[8] == 1_700_000_008
    assert table.created_at[9] == np.iinfo(np.int64).min
    np.testing.assert_array_equal(table.popularity, frame["popularity"])


def test_vectors_are_optional(written):
    folder, manifest = written(vectors=None)
    assert manifest.vector is None
    assert load_index(folder, encoder_version="e" * 12).vectors is None


def blend_of(items: int = 30, seed: int = 6, **weights: float) -> Blend:
    return tiny_blend(BlendSpec(weights={**BLEND_WEIGHTS, **weights}), items, seed)


def test_the_signals_beside_the_scorer_are_optional(written):
    folder, manifest = written(blend=blend_of())
    loaded = load_index(folder, encoder_version="e" * 12).blend
    assert loaded.spec == manifest.blend
    assert same_blend(loaded, blend_of())
    folder, manifest = written("alone")
    assert manifest.blend is None
    assert load_index(folder, encoder_version="e" * 12).blend is None


def test_lists_of_links_are_for_many_items(written):
    folder, manifest = written(blend=blend_of(), ann_items=20)
    assert manifest.linked
    linked = load_index(folder, encoder_version="e" * 12).linked
    expected = BlendLookup(blend_of()).lists()
    assert linked.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(linked[name], array)
    few, manifest = written("few", blend=blend_of())
    assert not manifest.linked
    assert load_index(few, encoder_version="e" * 12).linked is None
    save_file({**expected, "places": expected["places"][1:].copy()}, folder / "linked.safetensors")
    with pytest.raises(VersionMismatch, match="of another index"):
        load_index(folder, encoder_version="e" * 12)
    (folder / "linked.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_index(folder, encoder_version="e" * 12)


def test_the_version_follows_from_the_signals_and_their_weights(written):
    versions = [
        written("a")[1].index_version,
        written("b", blend=blend_of())[1].index_version,
        written("c", blend=blend_of())[1].index_version,
        written("d", blend=blend_of(seed=7))[1].index_version,
        written("e", blend=blend_of(content=0.81))[1].index_version,
    ]
    assert versions[1] == versions[2]
    assert len(set(versions)) == 4


def test_signals_of_other_items_are_not_written(written, tmp_path):
    with pytest.raises(ValueError, match="signals of 29 items for 30 items"):
        written(blend=blend_of(29))
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_signals_are_told(written, damage):
    folder, _ = written(blend=blend_of())
    path = folder / "blend.safetensors"
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-8])
    with pytest.raises(WeightsError, match=r"blend\.safetensors cannot be loaded"):
        load_index(folder, encoder_version="e" * 12)


def test_signals_of_another_index_are_not_mixed(written):
    folder, _ = written(blend=blend_of())
    blend_of(20).save(folder)
    with pytest.raises(VersionMismatch, match="manifest says"):
        load_index(folder, encoder_version="e" * 12)


def test_the_index_of_another_encoder_is_refused(written):
    folder, _ = written()
    with pytest.raises(VersionMismatch, match="made by encoder eeeeeeeeeeee"):
        load_index(folder, encoder_version="f" * 12)


def test_the_version_follows_from_the_content(written, frame, unit_rows):
    versions = [
        written("a")[1].index_version,
        written("b")[1].index_version,
        written("c", items=frame.assign(popularity=1.0))[1].index_version,
        written("d", embeddings=unit_rows(30, 16, 9))[1].index_version,
        written("e", vectors=None)[1].index_version,
    ]
    assert versions[0] == versions[1]
    assert len(set(versions)) == 4
    assert all(len(version) == 12 for version in versions)


def test_ids_must_be_unique(written, frame):
    with pytest.raises(ValueError, match="not unique"):
        written(items=frame.assign(id="same"))


def test_rows_must_match(written, unit_rows):
    with pytest.raises(ValueError, match="29 embeddings for 30 items"):
        written(embeddings=unit_rows(29, 16))


def test_a_missing_or_damaged_file_is_told(written):
    folder, _ = written()
    (folder / "vectors.safetensors").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_index(folder, encoder_version="e" * 12)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_index(folder / "nowhere", encoder_version="e" * 12)


def test_files_of_two_indexes_are_not_mixed(written, frame, unit_rows):
    folder, _ = written()
    other, _ = written(
        "other", items=frame[:20], embeddings=unit_rows(20, 16), vectors=unit_rows(20, 4)
    )
    (other / "items.safetensors").replace(folder / "items.safetensors")
    with pytest.raises(VersionMismatch, match="manifest says"):
        load_index(folder, encoder_version="e" * 12)


def test_a_manifest_of_another_format_is_refused(written):
    folder, manifest = written()
    text = json.dumps({**manifest.model_dump(), "format": 2})
    (folder / "index.json").write_text(text)
    with pytest.raises(VersionMismatch, match=r"format 2.*reads format 3: export it again"):
        load_index(folder, encoder_version="e" * 12)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("limit", [1, 7, 60, 500])
def test_search_is_exact(unit_rows, share, limit):
    matrix, query = unit_rows(300, 8, 3), unit_rows(1, 8, 4)[0]
    allowed = np.random.default_rng(5).random(300) < share
    ranked = sorted(np.flatnonzero(allowed), key=lambda row: -float(matrix[row] @ query))
    found = PlainSearch(matrix).nearest(query, allowed, limit)
    assert found.tolist() == sorted(ranked[:limit])


def test_search_among_nothing_finds_nothing(unit_rows):
    rows = PlainSearch(unit_rows(5, 8)).nearest(unit_rows(1, 8)[0], np.zeros(5, dtype=bool), 3)
    assert rows.tolist() == []


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("limit", [1, 7, 500])
def test_the_highest_allowed_rows_are_found(share, limit):
    rng = np.random.default_rng(8)
    scores, allowed = rng.standard_normal(200).astype(np.float32), rng.random(200) < share
    ranked = sorted(np.flatnonzero(allowed).tolist(), key=lambda row: -scores[row])
    assert top_rows(scores, allowed, limit).tolist() == sorted(ranked[:limit])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, PlainSearch),
        ({"compressed_bytes": 0}, Int8Search),
        ({"ann_items": 20}, AnnSearch),
    ],
)
def test_the_search_follows_from_the_number_of_items(written, unit_rows, options, kind):
    folder, manifest = written(**options)
    index = load_index(folder, encoder_version="e" * 12)
    assert isinstance(index.embedding_search, kind)
    assert isinstance(index.vector_search, kind)
    assert index.manifest == manifest
    everything = np.ones(30, dtype=bool)
    query = unit_rows(30, 16, 1)[4]
    assert 4 in index.embedding_search.nearest(query, everything, 3)
    assert 4 in index.vector_search.nearest(unit_rows(30, 4, 2)[4], everything, 3)


def test_a_small_index_has_no_files_of_a_search(written):
    folder, _ = written()
    names = {path.name for path in folder.iterdir()}
    assert names == {"index.json", "items.safetensors", "vectors.safetensors"}


def test_what_belongs_to_a_search_must_be_there(written):
    folder, _ = written(compressed_bytes=0)
    (folder / "search.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_index(folder, encoder_version="e" * 12)


@pytest.mark.parametrize("damage", ["missing", "cut", "other arrays", "short column"])
def test_items_that_are_no_columns_are_told(written, damage):
    folder, _ = written()
    path = folder / "items.safetensors"
    arrays, data = load_file(path), path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-8])
    elif damage == "other arrays":
        save_file({"id.offsets": np.arange(31)}, path)
    elif damage == "short column":
        save_file({**arrays, "price": arrays["price"][1:].copy()}, path)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_index(folder, encoder_version="e" * 12)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_columns(folder)


def test_columns_are_read_alone(written, frame):
    further = frame.assign(
        season=["winter", None, "夏"] * 10,
        rating=[4.5, None, 3] * 10,
        weight=["1.5", None, "2"] * 10,
        code=["007", "12", None] * 10,
        organic=[True, False, True] * 10,
        tags=[np.array(["a", "b"]), None, "c"] * 10,
    )
    folder, manifest = written(items=further)
    assert set(manifest.extras) == {"season", "rating", "weight", "code", "organic", "tags"}
    columns = read_columns(folder)
    for name in INDEX_COLUMNS:
        cells = frame[name].astype(object)
        assert columns[name] == cells.where(cells.notna(), None).tolist()
    assert columns["season"] == ["winter", None, "夏"] * 10
    assert columns["rating"] == [4.5, None, 3] * 10
    assert columns["weight"] == [1.5, None, 2] * 10
    assert columns["code"] == ["007", "12", None] * 10
    assert columns["organic"] == ["True", "False", "True"] * 10
    assert columns["tags"][1:3] == [None, "c"]
    table = load_index(folder, encoder_version="e" * 12).table
    assert table.column("season")[2] == "夏"
    assert np.isnan(table.column("weight")[1])
    with pytest.raises(KeyError):
        table.column("description")


def test_loading_an_index_needs_no_table_reader_and_no_torch(written):
    folder, _ = written(ann_items=20)
    code = (
        "import sys; from pathlib import Path; from newshelf.serving.index import load_index; "
        f"load_index(Path({str(folder)!r}), encoder_version={'e' * 12!r}); "
        "print(sorted({'torch', 'pyarrow', 'pandas', 'faiss'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['faiss']"
