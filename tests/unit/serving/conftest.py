"""A tiny but real model, exported to TorchScript, and an index of drawn-up products."""

import base64
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import tokenizers
import torch
from PIL import Image
from transformers import BertConfig

from newshelf.catalog.schema import Product
from newshelf.config import Limits
from newshelf.nn.encoder import Encoder
from newshelf.nn.numpy_scorer import Pooling
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import (
    AttributeInput,
    EncoderSpec,
    FusionSpec,
    ImageInput,
    ModelSpec,
    ScorerSpec,
    TextInput,
)
from newshelf.serving.encoder_predictor import load_encoder_predictor, open_encoder
from newshelf.serving.golden import write_golden
from newshelf.serving.index_write import write_index
from newshelf.serving.protocol import RawRequest
from newshelf.serving.recommender_predictor import load_recommender_predictor, open_scorer
from newshelf.serving.runtimes.base import Device, encoder_graph
from newshelf.serving.settings import ServingSettings, write_version
from newshelf.serving.trace import RecordingObserver

VERSION = "0123456789ab"
LIMITS = Limits(max_pixels=1_000_000, max_picture_bytes=400_000)
WORDS = ["jade", "gold", "linen", "ring", "shirt", "lamp", "green", "red", "a", "of", "the"]


def tokenizer_json() -> str:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    model = tokenizers.models.WordLevel({name: at for at, name in enumerate(names)}, "[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def model_spec() -> ModelSpec:
    bert = BertConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    features = timm.create_model("test_byobnet", num_classes=0).num_features
    return ModelSpec(
        catalog_name="tiny",
        encoder=EncoderSpec(
            image=ImageInput(
                architecture="test_byobnet",
                features=features,
                size=32,
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
            ),
            text=TextInput(architecture=bert.to_dict(), features=32, max_tokens=16),
            attributes=AttributeInput(buckets=64, width=8, price_edges=(10.0, 50.0)),
            fusion=FusionSpec(width=64, heads=4),
            labels={"color": ("green", "red"), "material": ("jade", "gold", "linen")},
        ),
        scorer=ScorerSpec(width=16, hidden=32, max_history=4),
    )


def items_frame() -> pd.DataFrame:
    """30 items: 3 types x 5 materials/colours x 2, with prices, dates and popularity."""
    types = ["Jewellery > Rings", "Clothing > Shirts", "Home > Lighting > Lamps"]
    materials = ["jade", "gold", "linen", "Brass,glass", None]
    colors = ["green", "yellow", "red/white", "Green", None]
    rows = [
        {
            "id": f"i{number:02}",
            "title": f"{WORDS[number % 9]} {WORDS[(number + 3) % 9]}",
            "product_type": types[number % 3],
            "brand": "Aurora" if number % 2 else "Fjord",
            "color": colors[number % 5],
            "material": materials[number // 6],
            "size": None,
            "price": None if number == 7 else 5.0 * number,
            "availability": "out_of_stock" if number in (4, 11) else "in_stock",
            "created_at": None if number == 9 else 1_700_000_000 + number,
            "popularity": float((number * 7) % 30),
        }
        for number in range(30)
    ]
    rows[13]["availability"] = None
    rows[14]["availability"] = "preorder"
    return pd.DataFrame(rows)


def frame_products(frame: pd.DataFrame) -> list[Product]:
    columns = ["id", "title", "product_type", "brand", "color", "material", "size", "price"]
    records = frame[columns].astype(object).where(frame[columns].notna(), None).to_dict("records")
    return [Product(**record) for record in records]


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return model_spec()


@pytest.fixture(scope="session")
def encoder(spec) -> Encoder:
    torch.manual_seed(3)
    return Encoder(spec.encoder).eval()


@pytest.fixture(scope="session")
def scorer(spec) -> SiameseScorer:
    torch.manual_seed(4)
    return SiameseScorer(spec.scorer, spec.encoder.embedding).eval()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, spec, encoder, scorer) -> Path:
    """An unpacked recommender archive, without its code."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "model.json").write_text(spec.model_dump_json())
    (folder / "tokenizer.json").write_text(tokenizer_json())
    write_version(folder, VERSION)
    save_graphs(folder, encoder, scorer)
    torchscript = ServingSettings(runtime="torchscript")
    write_golden(
        folder,
        [{"title": "green jade ring"}, {"title": "a linen shirt"}],
        open_encoder(folder, spec, Device(), torchscript),
        open_scorer(folder, spec, torchscript),
    )
    frame = items_frame()
    embeddings = torch.nn.functional.normalize(
        torch.randn(30, 512, generator=torch.Generator().manual_seed(5)), dim=1
    )
    with torch.inference_mode():
        vectors = scorer.project(embeddings)
    write_index(
        folder / "index",
        encoder_version=VERSION,
        items=frame,
        embeddings=embeddings.numpy(),
        vectors=vectors.numpy(),
        pooling=pooling_of(scorer),
    )
    return folder


def pooling_of(scorer: SiameseScorer) -> Pooling:
    score = scorer.score
    return Pooling(
        sharpness=score.log_sharpness.exp().item(),
        weight=score.weight_logit.sigmoid().item(),
        scale=score.log_scale.exp().item(),
    )


@pytest.fixture(scope="session")
def pooling(scorer) -> Pooling:
    return pooling_of(scorer)


def save_graphs(folder: Path, encoder: Encoder, scorer: SiameseScorer) -> None:
    example = (
        torch.rand(2, 3, 32, 32),
        torch.tensor([0, 2]),
        torch.randint(0, 8, (3, 5)),
        torch.ones(3, 5, dtype=torch.int64),
        torch.tensor([0, 1, 2]),
        torch.randint(0, 64, (3, 9)),
    )
    torch.jit.trace(encoder, example, check_trace=False).save(str(folder / "encoder.pt"))
    projector = torch.jit.trace(scorer.project, torch.rand(2, 512), check_trace=False)
    projector.save(str(folder / "projector.pt"))
    shapes = (torch.rand(2, 3, 16), torch.ones(2, 3, dtype=torch.bool), torch.rand(2, 5, 16))
    torch.jit.trace(scorer.score, shapes, check_trace=False).save(str(folder / "scorer.pt"))
    assert encoder_graph(encoder.spec).outputs[1:] == ("color_logits", "material_logits")


@pytest.fixture(scope="session")
def settings() -> ServingSettings:
    return ServingSettings(runtime="torchscript", retrieve=12, max_forward_batch=3, limits=LIMITS)


@pytest.fixture(scope="session")
def recorder() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture(scope="session")
def encoder_predictor(bundle, settings, recorder):
    return load_encoder_predictor(bundle, settings=settings, observer=recorder)


@pytest.fixture(scope="session")
def recommender(bundle, settings):
    return load_recommender_predictor(bundle, settings=settings)


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    return items_frame()


@pytest.fixture(scope="session")
def post():
    """Send a batch (JSON values, bytes or whole requests); statuses with parsed answers."""

    def send(predictor, *bodies):
        rows = [_request(body, at) for at, body in enumerate(bodies)]
        answers = predictor.predict(rows)
        assert len(answers) == len(rows)
        return [(answer.status, json.loads(answer.body)) for answer in answers]

    return send


def _request(body, at: int) -> RawRequest:
    if isinstance(body, RawRequest):
        # Those without a name may have been made long before they are sent.
        return body if body.request_id else replace(body, arrived_s=time.monotonic())
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RawRequest({"body": raw}, "application/json", f"request-{at}")


@pytest.fixture(scope="session")
def picture():
    """Bytes of a picture: left half red, right half blue, unless told otherwise."""

    def draw(kind="PNG", size=(60, 40), mode="RGB", **options) -> bytes:
        image = Image.new("RGB", size, (255, 0, 0))
        image.paste((0, 0, 255), (size[0] // 2, 0, size[0], size[1]))
        stream = io.BytesIO()
        image.convert(mode).save(stream, kind, **options)
        return stream.getvalue()

    return draw


@pytest.fixture(scope="session")
def b64():
    return lambda data: base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def unit_rows():
    def make(count: int, width: int, seed: int = 0) -> np.ndarray:
        rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return make
