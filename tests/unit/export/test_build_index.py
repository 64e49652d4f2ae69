import numpy as np
import pytest
import torch

from export.index import build_index, popularity
from newshelf.errors import VersionMismatch
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.serving.index import load_index
from tests.unit.export.catalogs import write_catalog
from tests.unit.export.tiny_checkpoint import (
    IDS,
    same_blend,
    tiny_blend,
    tiny_spec,
    write_tiny_checkpoint,
)


def test_index_is_what_serving_loads(tmp_path, checkpoint_dir):
    manifest = build_index(checkpoint_dir, write_catalog(tmp_path / "c"), tmp_path / "index")
    checkpoint = load_checkpoint(checkpoint_dir)
    index = load_index(tmp_path / "index", encoder_version=checkpoint.version)
    assert index.manifest == manifest
    assert list(index.table.id) == list(IDS)
    ids, embeddings = checkpoint.embeddings()
    assert ids == list(IDS)
    np.testing.assert_array_equal(index.embeddings, embeddings.numpy())
    with torch.inference_mode():
        expected = checkpoint.scorer.project(embeddings)
    np.testing.assert_allclose(index.vectors, expected.numpy(), atol=1e-6)


def test_popularity_counts_events_and_baskets(tmp_path):
    catalog = write_catalog(tmp_path / "c")
    assert popularity(catalog).tolist() == [1, 2, 0, 0, 2, 0]


def test_popularity_without_any_interaction_is_zero(tmp_path):
    catalog = write_catalog(tmp_path / "c", events=False, baskets=False)
    assert popularity(catalog).tolist() == [0] * len(IDS)


def test_index_without_scorer_has_no_vectors(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", tiny_spec(image=False, scorer=False))
    manifest = build_index(folder, write_catalog(tmp_path / "c"), tmp_path / "index")
    assert manifest.vector is None
    assert load_index(tmp_path / "index", encoder_version=manifest.encoder_version).vectors is None


def test_the_signals_beside_the_scorer_go_along(tmp_path, checkpoint_dir):
    spec = tiny_spec(blend=True)
    manifest = build_index(checkpoint_dir, write_catalog(tmp_path / "c"), tmp_path / "index")
    assert manifest.blend == spec.blend
    blend = load_index(tmp_path / "index", encoder_version=manifest.encoder_version).blend
    assert same_blend(blend, tiny_blend(spec.blend))


def test_where_the_scorer_ranks_alone_there_are_none(tmp_path):
    folder = write_tiny_checkpoint(tmp_path / "checkpoint")
    manifest = build_index(folder, write_catalog(tmp_path / "c"), tmp_path / "index")
    assert manifest.blend is None
    assert not (tmp_path / "index/blend.safetensors").exists()


@pytest.mark.parametrize("ids", [IDS[:-1], (*IDS, "new"), tuple(reversed(IDS))])
def test_other_products_than_the_models_are_refused(tmp_path, checkpoint_dir, ids):
    catalog = write_catalog(tmp_path / "c", ids)
    with pytest.raises(VersionMismatch, match="train again"):
        build_index(checkpoint_dir, catalog, tmp_path / "index")
    assert not (tmp_path / "index").exists()
