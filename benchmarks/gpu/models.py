"""Models with random weights of a fixed seed, exported and packed as Newshelf's own are.

They need neither a catalogue nor anything that is downloaded.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from rich.console import Console
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from benchmarks.gpu.pictures import Size, encoded, jpegs, photograph
from benchmarks.results import BenchmarkError
from benchmarks.serve.networks import fit_statistics
from export.graphs import write_float16, write_onnx, write_torchscript
from export.mar import ArchivedModel, write_archive
from export.run import encoder_subject
from newshelf.config import (
    ArchiveSettings,
    ModelServingSettings,
    Precision,
    RuntimeKind,
)
from newshelf.files import directory_aside
from newshelf.nn.encoder import Encoder
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.nn.spec import (
    SPEC_FILE,
    AttributeInput,
    EncoderSpec,
    FusionSpec,
    ImageInput,
    ModelSpec,
    TextInput,
)
from newshelf.serving.encoder_predictor import (
    EncoderPredictor,
    load_encoder_predictor,
    open_encoder,
)
from newshelf.serving.golden import write_golden
from newshelf.serving.protocol import RawRequest
from newshelf.serving.runtimes.base import Device, graph_files
from newshelf.serving.settings import (
    GOLDEN,
    TOKENIZER,
    VERSION,
    ServingSettings,
    write_version,
)


@dataclass(frozen=True)
class Scale:
    """Sizes of models and loads."""

    name: str
    image: str
    """timm's name of the image tower, a ResNet."""
    size: int
    bert: Mapping[str, int]
    """Sizes of the text tower."""
    batches: Sequence[int]
    seconds: float
    """Length of one measurement in process."""
    load_seconds: float
    """Length of one load of a server."""
    mixed: int
    """Pictures of the mixture."""
    large: Size
    """Of the mixture's largest picture."""
    workers: Sequence[int]
    """Of TorchServe, tried in turn."""
    peers: Sequence[tuple[int, int]]
    """Workers and threads of FastAPI, tried in turn."""
    clients: int
    trained: int
    """Pictures of the fine-tuning."""


FULL = Scale(
    name="full",
    image="resnet50",
    size=224,
    bert={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    batches=(1, 8, 16, 32, 64, 128, 256),
    seconds=0.5,
    load_seconds=8,
    mixed=100_000,
    large=(3000, 2000),
    workers=(1, 2, 4),
    peers=((1, 16), (4, 4), (8, 2)),
    clients=256,
    trained=1024,
)
TINY = Scale(
    name="tiny",
    image="test_resnet",
    size=32,
    bert={
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    batches=(1, 3),
    seconds=0.01,
    load_seconds=1,
    mixed=60,
    large=(600, 400),
    workers=(2,),
    peers=((1, 1),),
    clients=4,
    trained=16,
)

_SEED = 7
_VERSION = "gpubench0000"
_CALIBRATION = 64
_WORDS = 2000


@dataclass(frozen=True)
class GpuModel:
    """One exported encoder."""

    folder: Path
    spec: ModelSpec
    scale: Scale

    @property
    def image(self) -> ImageInput:
        """The input of the image tower, which each model has."""
        if self.spec.encoder.image is None:
            raise BenchmarkError(f"{self.folder.name} has no image tower")
        return self.spec.encoder.image

    def load(
        self, device: Device, runtime: RuntimeKind, precision: Precision, batch: int = 8
    ) -> EncoderPredictor:
        """Return a predictor without a cache, warmed up for ``batch`` pictures."""
        settings = ServingSettings(
            runtime=runtime,
            precision=precision,
            batch_size=min(batch, 256),
            max_forward_batch=batch,
            cache_bytes=0,
        )
        return load_encoder_predictor(self.folder, device=device, settings=settings)

    def pack(
        self, store: Path, runtime: RuntimeKind, precision: Precision, workers: int, batch: int
    ) -> Path:
        """Write the archive into ``store``, and return its path."""
        serving = ModelServingSettings(
            workers=workers,
            batch_size=min(batch, 256),
            max_forward_batch=batch,
            queue_size=4 * self.scale.clients,
            cache_bytes=0,
        )
        settings = ArchiveSettings(runtime=runtime, precision=precision, encoder=serving)
        graph, *weights = graph_files("encoder", runtime, precision)
        texts = [TOKENIZER] if self.spec.encoder.text else []
        model = ArchivedModel(
            "encoder", serving, graph, [SPEC_FILE, VERSION, GOLDEN, *texts, *weights]
        )
        store.mkdir(parents=True, exist_ok=True)
        return write_archive(model, _VERSION, self.folder, settings, store)

    def requests(self, count: int) -> list[RawRequest]:
        """Return ``count`` different requests: a JPEG, with a title where there is a text tower."""
        pictures = jpegs(count)
        if self.spec.encoder.text is None:
            return [RawRequest({"body": data}, "image/jpeg") for data in pictures]
        return [
            RawRequest({"body": json.dumps(body(data, title(at))).encode()}, "application/json")
            for at, data in enumerate(pictures)
        ]


def body(picture: bytes, text: str) -> dict[str, str]:
    """Return a product as JSON's object."""
    return {"title": text, "image": base64.b64encode(picture).decode()}


def title(number: int) -> str:
    """Return a title of 4 to 11 words."""
    return " ".join(f"word{number * 31 % (_WORDS - at)}" for at in range(4 + number % 8))


def make_model(work: Path, scale: Scale, *, text: bool, onnx: bool, console: Console) -> GpuModel:
    """Return a model, exported in TorchScript, and by ``onnx`` for ONNX Runtime, too."""
    kind = "products" if text else "pictures"
    folder = work / "models" / f"{scale.name}-{kind}{'-onnx' if onnx else ''}"
    encoder_spec = _spec(scale, text=text)
    spec = ModelSpec(catalog_name="gpu", encoder=encoder_spec, scorer=None)
    if not folder.is_dir():
        console.print(f"exporting {folder.name} …", markup=False)
        with directory_aside(folder) as aside:
            _export(aside, spec, scale, onnx=onnx)
    return GpuModel(folder, spec, scale)


def seeded_encoder(spec: EncoderSpec, scale: Scale) -> Encoder:
    """Return the network of a model in float32, on the CPU."""
    torch.manual_seed(_SEED)
    encoder = Encoder(spec).eval()
    if encoder.image_tower is not None and spec.image is not None:
        squares = [
            decode_picture(data, spec.image) for data in jpegs(min(_CALIBRATION, scale.trained))
        ]
        pixels = torch.from_numpy(prepare_pictures(squares, spec.image))
        fit_statistics(encoder.image_tower.backbone, pixels)
    return encoder


def _spec(scale: Scale, *, text: bool) -> EncoderSpec:
    tower = timm.create_model(scale.image, pretrained=False, num_classes=0)
    image = ImageInput(
        architecture=scale.image,
        features=tower.num_features,
        size=scale.size,
        crop=0.875,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
    bert: dict[str, object] = {"model_type": "bert", "vocab_size": _WORDS + 100, **scale.bert}
    return EncoderSpec(
        image=image,
        text=TextInput(architecture=bert, features=scale.bert["hidden_size"]) if text else None,
        attributes=AttributeInput(),
        fusion=FusionSpec(),
        labels={"color": ("green", "red"), "material": ("gold", "jade", "linen")},
    )


def _export(folder: Path, spec: ModelSpec, scale: Scale, *, onnx: bool) -> None:
    (folder / SPEC_FILE).write_text(spec.model_dump_json(), encoding="utf-8")
    write_version(folder, _VERSION)
    if spec.encoder.text is not None:
        _write_tokenizer(folder / TOKENIZER)
    subject = encoder_subject(seeded_encoder(spec.encoder, scale))
    write_torchscript(subject.module, subject.example, folder / "encoder.pt")
    if onnx:
        path = folder / "encoder.onnx"
        write_onnx(subject.module, subject.example, subject.graph, subject.axes, path)
        write_float16(path, folder / "encoder.fp16.onnx")
    runtime = ServingSettings(runtime="torchscript")
    golden = [body(encoded(photograph((320, 240), seed)), title(seed)) for seed in range(100, 104)]
    write_golden(folder, golden, open_encoder(folder, spec, Device(), runtime), None)


def _write_tokenizer(path: Path) -> None:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    words = (*special, *(f"word{at}" for at in range(_WORDS)), *"abcdefghijklmnopqrstuvwxyz")
    model = models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]")  # noqa: S106
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(path))
