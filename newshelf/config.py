"""The settings of a run, read once from a TOML file; unknown keys are refused."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newshelf.errors import SettingsError
from newshelf.files import problems

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SampleSettings(_Section):
    """The drawn sample shop."""

    products: Annotated[int, Field(ge=60)] = 1300
    shoppers: Positive = 1100


class ImageTowerSettings(_Section):
    """Where the image tower comes from."""

    architecture: str = "tf_efficientnet_lite0"
    """A timm model name; torchvision calls the tensors of ``resnet50`` the same."""
    weights: str = "packaged"
    """``packaged``, a path to a ``state_dict`` (.pt, .pth, .safetensors), or ``hub``."""
    size: Positive = 224
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0


class TextTowerSettings(_Section):
    """Where the text tower comes from."""

    weights: str = "packaged"
    """``packaged``, a folder with a transformers model, or a hub name."""
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 64


class AttributeSettings(_Section):
    """The attribute tower."""

    buckets: Positive = 4096
    width: Positive = 32
    price_bins: Positive = 16


class FusionSettings(_Section):
    """How picture, text and attributes become one embedding."""

    kind: Literal["early", "late", "attention"] = "attention"
    modality_dropout: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the products whose picture is hidden in a step of fine-tuning, and of those
    whose text is; never both of one."""


class FinetuneSettings(_Section):
    """Fine-tuning on the source category, then a new head on the target category."""

    source: str = "auto"
    """First level of ``product_type`` to learn from; ``auto`` takes the richest."""
    epochs: Positive = 12
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    target_shots: Positive = 20
    """Labelled products per class that the target head may see."""
    target_epochs: Positive = 60
    l2_sp: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the weights that fine-tuning starts from."""
    class_balance: Fraction = 0.0
    """0 lets each label count as much as any other, 1 each class."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better validation; 0 never does."""


class TowerTuningSettings(_Section):
    """Tuning of the image tower on the source category's pictures."""

    mode: Literal["heads-only", "last-stage", "full"] = "heads-only"
    """``heads-only`` leaves the tower as it is; ``last-stage`` tunes what works at its lowest
    resolution, ``full`` all of it, thawed stage by stage."""
    size: Annotated[int, Field(ge=32)] = 160
    """Height and width in pixels while tuning."""
    epochs: Positive = 6
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    l2_sp: Annotated[float, Field(ge=0)] = 1e-2
    """λ of the distance to the weights that the tower came with; 0 lets go."""
    balance: Literal["sampler", "weights", "none"] = "sampler"
    augment: bool = True
    bf16: bool = True
    """Forward in bfloat16; the weights stay float32."""


class KnowledgeSettings(_Section):
    """What is written down about the products."""

    tagger_data: Path | None = None
    """Titles with marked spans, one JSON object a line; a tagger of titles is trained on them."""


class BlendSettings(_Section):
    """The signals beside the scorer, and how their weights are found."""

    enabled: bool = True
    """False ranks by the scorer alone."""
    half_life_days: Annotated[float, Field(gt=0)] = 60.0
    """What was taken so long ago counts half in the links."""
    ridge: Annotated[float, Field(gt=0)] = 2.0
    """λ of the links, in units of an item's mean weight."""
    linked_items: Positive = 8000
    """At most so many items, the most frequent, are linked directly."""
    links_per_item: Positive = 200
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training on which the weights are fitted."""
    dropped_items: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the items that lose their behaviour while the weights are fitted."""
    max_cases: Positive = 1000


class ScorerSettings(_Section):
    """The Siamese scorer, trained contrastively, and what is blended with it."""

    width: Positive = 128
    epochs: Positive = 12
    max_steps: Positive = 500
    """Batches in all, whatever the number of events: what the training may cost."""
    batch_size: Positive = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    max_history: Positive = 50
    temperature: Annotated[float, Field(gt=0)] = 0.07
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    hard_negatives: Annotated[int, Field(ge=0, le=50)] = 1
    """Items like the positive that each positive adds to the negatives."""
    blend: BlendSettings = BlendSettings()


class TrackingSettings(_Section):
    """Where the losses and accuracies of a training go."""

    kind: Literal["tensorboard", "mlflow", "none"] = "tensorboard"
    folder: str = ""
    """Empty is the workspace's ``runs``."""
    uri: str = ""
    """An MLflow server (``http://…``) instead of a folder."""


class EvaluationSettings(_Section):
    """Splits and cut-offs of ``evaluate``."""

    k: tuple[Positive, ...] = (10, 20)
    test_fraction: Fraction = 0.2
    """The latest share of the events, or the share of baskets, kept for testing."""
    cold_fraction: Fraction = 0.15
    """Share of the items held out whole for the item-cold split."""


class WorkerSettings(_Section):
    """The workers of one model: the section ``serving`` of its archive's ``model-config.yaml``."""

    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    """Maximum number of requests in a batch; a worker warms up for that many pictures."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Intra-op threads per worker; 0 divides the cores among the workers."""
    decode_threads: Annotated[int, Field(ge=0)] = 0
    """Picture decoding threads per worker; 0 divides the cores among the workers. With one, a
    worker alternates between decoding and computing; with more, it decodes several pictures at
    once, and during a forward pass if a core is free."""
    preload: bool = True
    """Load the model once, and fork the workers from that process, if they compute on the CPU with
    one thread each: an additional worker then takes little memory, and starts at once."""
    max_forward_batch: Positive = 64
    """Maximum number of products in a forward pass of the encoder."""
    max_forward_pictures: Annotated[int, Field(ge=0)] = 0
    """Maximum number of pictures in a forward pass of the encoder; with several decoding threads,
    the next ones are decoded during it. 0 means 4 if a core is free for decoding, else all."""
    cache_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    """Memory per worker for embeddings of earlier requests; 0 disables the cache."""


class RetrievalSettings(_Section):
    """The items that the recommender's workers rank."""

    retrieve: Positive = 400
    """Number of items that reach the scorer if a request names no candidates."""
    min_confidence: Fraction = 0.6
    """Minimum confidence of inferred attributes, for filters and explanations."""


class ModelServingSettings(WorkerSettings):
    """How TorchServe serves one model: its ``model-config.yaml``."""

    max_batch_delay_ms: Annotated[int, Field(ge=1, le=1000)] = 1
    """At least 1: TorchServe reads 0 as 100 ms. A lone request waits the full time; under load,
    batches fill while the workers are busy."""
    workers: Positive = 1
    response_timeout_s: Positive = 30
    queue_size: Positive = 64


class RecommenderServingSettings(ModelServingSettings, RetrievalSettings):
    """How TorchServe serves the recommender."""


class IndexSettings(_Section):
    """Nearest-neighbour search over the items."""

    ann_items: Positive = 100_000
    """Maximum number of items for exact search; above it, search is approximate."""


class Limits(_Section):
    """Limits of one request, the same in the gateway and the workers."""

    max_body_bytes: Positive = 8_000_000
    """All parts of one request to a model: a picture of ``max_picture_bytes`` in base64 fits."""
    max_picture_bytes: Positive = 5_000_000
    """One picture, after base64."""
    max_pixels: Positive = 40_000_000
    """Width times height of one picture, read from its header before it is decoded."""
    max_request_pixels: Positive = 80_000_000
    """The sum over all pictures of a request."""
    max_text_chars: Positive = 10_000
    """Each text field of a product."""
    max_instances: Positive = 64
    """Products to encode in one request."""
    max_history: Positive = 200
    max_candidates: Positive = 1_000
    max_k: Positive = 100
    timeout_ms: Positive = 10_000
    """From a request's arrival to its answer, unless the request gives a shorter time."""


RuntimeKind = Literal["onnxruntime", "torchscript", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Provider = Literal["cuda", "tensorrt"]
"""ONNX Runtime's provider on a GPU."""


class ArchiveSettings(_Section):
    """Contents of the archives, and how they are served."""

    runtime: Literal["auto", RuntimeKind] = "auto"
    precision: Literal["auto", Precision] = "auto"
    """Precision of the encoder. ``auto`` selects the fastest runtime and precision that passed
    the gate on the exporting machine's CPU; a named one that did not pass is an error."""
    provider: Provider = "cuda"
    encoder: ModelServingSettings = ModelServingSettings()
    recommender: RecommenderServingSettings = RecommenderServingSettings()
    limits: Limits = Limits()


class GatewaySettings(_Section):
    """The HTTP API that a shop's front end calls."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    processes: Positive = 1
    max_connections: Annotated[int, Field(ge=2)] = 8_192
    """Open sockets of each process, as far as its limit of open files allows. One that waits
    makes room for a new one."""
    max_connections_per_peer: Annotated[int, Field(ge=0)] = 0
    """The same from one address; 0 takes half of ``max_connections``."""
    max_requests: Positive = 2_000
    """Under way at once in each process."""
    max_head_bytes: Annotated[int, Field(ge=1_024)] = 16_384
    """Of a request line and its headers."""
    receive_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """In which a head must be whole, a refused request's body, and the next part of an answer
    be read."""
    keep_alive_s: Annotated[float, Field(gt=0)] = 75.0
    """How long a connection may wait for its next request: longer than a balancer keeps it."""
    worker_start_s: Annotated[float, Field(gt=0)] = 300.0
    """In which a process must serve, or it is killed and replaced."""
    worker_silence_s: Annotated[float, Field(gt=0)] = 60.0
    """Without a sign of life, after which a process that serves is killed and replaced."""
    connections: Positive = 64
    """To TorchServe, of each process; as many more requests may wait for one."""
    max_body_bytes: Positive = 6_553_500
    timeout_ms: Positive = 1_000
    """Of a request that names no deadline."""
    max_timeout_ms: Positive = 10_000
    """The furthest deadline that a request may name."""
    retry_share: Fraction = 0.1
    """Of the requests that may be sent a second time."""
    breaker_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of the last requests to a model version that have to fail for it to be left alone."""
    breaker_requests: Positive = 20
    """How many those last requests are."""
    breaker_open_s: Annotated[float, Field(gt=0)] = 5.0
    """For how long it is left alone, before one request tries it again."""
    shadow_requests: Positive = 32
    """Copies for a shadowed model that may be under way at once; further ones are dropped."""
    max_value: Annotated[float, Field(gt=0)] = 1e9
    """Of a purchase, in the shop's currency; a larger one is a mistake, and refused."""
    record: Literal["required", "best_effort"] = "required"
    """``required`` answers only what was recorded; ``best_effort`` answers anyway."""
    log_requests: bool = True
    traces: Literal["none", "console", "otlp"] = "none"


class LogSettings(_Section):
    """The logs of the processes that ``./run serve`` starts."""

    max_bytes: Annotated[int, Field(ge=100_000)] = 10_000_000
    """Of one file; then the next begins."""
    kept: Positive = 5
    """Older files of each log, of earlier starts, too."""


class StoreSettings(_Section):
    """Where exposures, feedback and rollouts are kept."""

    url: str = ""
    """``postgresql+psycopg://…`` or ``sqlite:///FILE``; empty is SQLite in the workspace."""
    spool: str = ""
    """The file that keeps what the store cannot take; empty is the workspace's."""
    spool_max_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Of that file; 0 does without it."""


class RolloutSettings(_Section):
    """The controller, which looks at rollouts and moves them on."""

    tick_s: Annotated[float, Field(gt=0)] = 10.0
    """Between two looks."""
    look_s: Annotated[float, Field(ge=0)] = 60.0
    """Between two looks that are kept for the report; changes always are."""
    failed_looks: Positive = 30
    """In a row, after which a rollout that cannot be decided is paused."""
    lease_s: Annotated[float, Field(ge=5)] = 30.0
    """Another controller takes over from one that was silent for so long."""
    load_s: Annotated[float, Field(gt=0)] = 300.0
    """In which a challenger must load and answer."""
    covariate_days: Annotated[float, Field(gt=0)] = 14.0
    """The window before a rollout, by which shoppers are told apart (CUPED)."""


class Settings(_Section):
    """The whole file. Every section and key may be left out."""

    seed: int = 7
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch threads for training; 0 takes every core."""
    sample: SampleSettings = SampleSettings()
    image: ImageTowerSettings | None = ImageTowerSettings()
    text: TextTowerSettings | None = TextTowerSettings()
    attributes: AttributeSettings = AttributeSettings()
    fusion: FusionSettings = FusionSettings()
    tower: TowerTuningSettings = TowerTuningSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    scorer: ScorerSettings = ScorerSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    tracking: TrackingSettings = TrackingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    index: IndexSettings = IndexSettings()
    archive: ArchiveSettings = ArchiveSettings()
    stall_s: Annotated[float, Field(gt=0)] = 180.0
    """Of a server that starts, without progress, after which ``./run serve`` gives up."""
    gateway: GatewaySettings = GatewaySettings()
    logs: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings()
    rollout: RolloutSettings = RolloutSettings()


def load_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises:
        SettingsError: with the file, the key and the reason.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    try:
        return Settings.model_validate(table)
    except ValidationError as error:
        raise SettingsError(f"{path}: {problems(error)}") from error
