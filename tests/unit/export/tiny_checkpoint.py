"""A tiny but real checkpoint, with or without each of its parts."""

from pathlib import Path

import numpy as np
import timm
import tokenizers
import torch
from filelock import FileLock
from scipy import sparse
from torch.nn import functional as F
from transformers import BertConfig

from export.run import export_model
from newshelf.nn.blend import Blend
from newshelf.nn.checkpoint import save_checkpoint
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import (
    AttributeInput,
    BlendSpec,
    EncoderSpec,
    FusionSpec,
    ImageInput,
    ModelSpec,
    ScorerSpec,
    TextInput,
)

WORDS = ("jade", "gold", "linen", "ring", "shirt", "lamp", "green", "red")
BLEND_WEIGHTS = {"siamese": 0.3, "content": 0.8, "direct": 0.5, "similar": -0.1, "likewise": 0.2}
IDS = tuple(f"i{number}" for number in range(6))


def tokenizer_json() -> str:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    model = tokenizers.models.WordLevel({name: at for at, name in enumerate(names)}, "[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


def tiny_spec(
    *, image: bool = True, text: bool = True, scorer: bool = True, blend: bool = False
) -> ModelSpec:
    bert = BertConfig(
        vocab_size=12,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    tower = ImageInput(
        architecture="test_byobnet",
        features=timm.create_model("test_byobnet", num_classes=0).num_features,
        size=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return ModelSpec(
        catalog_name="tiny",
        encoder=EncoderSpec(
            image=tower if image else None,
            text=(
                TextInput(architecture=bert.to_dict(), features=32, max_tokens=36) if text else None
            ),
            attributes=AttributeInput(buckets=64, width=8, price_edges=(10.0, 50.0)),
            fusion=FusionSpec(width=64, heads=4),
            labels={"target_type": ("Rings", "Lamps", "Shirts"), "color": ("green", "red")},
        ),
        scorer=ScorerSpec(width=16, hidden=32, max_history=5) if scorer else None,
        blend=BlendSpec(weights=BLEND_WEIGHTS) if blend else None,
    )


def tiny_blend(spec: BlendSpec, items: int = len(IDS), seed: int = 6) -> Blend:
    """Any links, some negative and none to the last item; any neighbours and prior."""
    rng = np.random.default_rng(seed)
    links = (rng.random((items, items)) < 0.5) * rng.normal(0.1, 0.2, (items, items))
    links[:, -1] = 0
    shares = (rng.random((items, items)) < 0.4) * rng.random((items, items)) + 0.1 * np.eye(items)
    shares /= shares.sum(axis=1, keepdims=True)
    return Blend(
        spec,
        sparse.csr_array(links.astype(np.float32)),
        sparse.csr_array(shares.astype(np.float32)),
        rng.standard_normal(items).astype(np.float32),
    )


def same_blend(first: Blend, second: Blend) -> bool:
    """Equal weights, links, neighbours and prior."""
    one, other = first.arrays(), second.arrays()
    return (
        first.spec == second.spec
        and one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name]) for name in one)
    )


def write_tiny_checkpoint(folder: Path, spec: ModelSpec | None = None) -> Path:
    """Random weights, the same each time."""
    spec = spec or tiny_spec()
    torch.manual_seed(3)
    encoder = Encoder(spec.encoder).eval()
    scorer = SiameseScorer(spec.scorer, spec.encoder.embedding).eval() if spec.scorer else None
    save_checkpoint(
        folder,
        spec=spec,
        encoder=encoder,
        scorer=scorer,
        blend=tiny_blend(spec.blend) if spec.blend else None,
        tokenizer_json=tokenizer_json() if spec.encoder.text else None,
        ids=IDS,
        embeddings=F.normalize(torch.randn(len(IDS), spec.encoder.embedding), dim=1),
        training={},
    )
    return folder


def shared_export(
    tmp_path_factory, worker_id: str, *, towers: str = "image and text"
) -> tuple[Path, Path]:
    """A tiny checkpoint and its export, made once for all processes of a test run.

    Args:
        tmp_path_factory: pytest's.
        worker_id: pytest-xdist's.
        towers: "image and text", with scorer and blend, or one of them alone.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / f"tiny {towers}"
    whole = towers == "image and text"
    spec = tiny_spec(image="image" in towers, text="text" in towers, scorer=whole, blend=whole)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            write_tiny_checkpoint(folder / "checkpoint", spec)
        if not (folder / "export").exists():
            export_model(folder / "checkpoint", folder / "export")
    return folder / "checkpoint", folder / "export"
