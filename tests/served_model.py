"""A tiny but real model, exported to TorchScript, and an index of drawn-up products."""

import io
from pathlib import Path

import pandas as pd
import timm
import tokenizers
import torch
from PIL import Image
from transformers import BertConfig

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
from newshelf.serving.encoder_predictor import open_encoder
from newshelf.serving.golden import write_golden
from newshelf.serving.index_write import write_index
from newshelf.serving.recommender_predictor import open_scorer
from newshelf.serving.runtimes.base import Device, encoder_graph
from newshelf.serving.settings import ServingSettings, write_version

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


def made_encoder(spec: ModelSpec) -> Encoder:
    torch.manual_seed(3)
    return Encoder(spec.encoder).eval()


def made_scorer(spec: ModelSpec) -> SiameseScorer:
    torch.manual_seed(4)
    return SiameseScorer(spec.scorer, spec.encoder.embedding).eval()


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


def write_bundle(folder: Path, spec: ModelSpec, encoder: Encoder, scorer: SiameseScorer) -> None:
    """Write an unpacked recommender archive, without its code."""
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


def pooling_of(scorer: SiameseScorer) -> Pooling:
    score = scorer.score
    return Pooling(
        sharpness=score.log_sharpness.exp().item(),
        weight=score.weight_logit.sigmoid().item(),
        scale=score.log_scale.exp().item(),
    )


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


def draw_picture(kind="PNG", size=(60, 40), mode="RGB", **options) -> bytes:
    """Bytes of a picture: left half red, right half blue."""
    image = Image.new("RGB", size, (255, 0, 0))
    image.paste((0, 0, 255), (size[0] // 2, 0, size[0], size[1]))
    stream = io.BytesIO()
    image.convert(mode).save(stream, kind, **options)
    return stream.getvalue()
