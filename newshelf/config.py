"""Settings, read from a TOML file; unknown keys are refused. docs/settings.md explains each."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, HttpUrl, IPvAnyNetwork, ValidationError, model_validator

from newshelf.errors import SettingsError
from newshelf.files import StrictModel, problems

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Language = Literal["en", "zh"]
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}
_ORIGIN = r"^https?://[a-z0-9.\-\[\]:]+$"


class SampleSettings(StrictModel):
    """The drawn sample shop."""

    products: Annotated[int, Field(ge=60)] = 1300
    shoppers: Positive = 1100
    language: Language = "en"
    """Language of its texts; products, pictures and shoppers are the same in each."""


class ImageTowerSettings(StrictModel):
    """The image tower."""

    architecture: str = "tf_efficientnet_lite0"
    """A timm model name; torchvision's ``resnet50`` has the same tensor names."""
    weights: str = "packaged"
    """``packaged``, ``hub``, or the path of a ``state_dict`` (.pt, .pth, .safetensors)."""
    size: Positive = 224
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0


class TextTowerSettings(StrictModel):
    """The text tower."""

    weights: str = "auto"
    """``packaged`` (English), ``packaged-multilingual``, ``auto`` for one of these two by the
    catalogue's texts, a folder with a transformers model, or a hub name."""
    max_unreadable: Fraction = 0.1
    """Share of texts that are unreadable in English, above which ``auto`` is multilingual."""
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 64


class AttributeSettings(StrictModel):
    """The attribute tower."""

    buckets: Positive = 4096
    width: Positive = 32
    price_bins: Positive = 16


class FusionSettings(StrictModel):
    """Fusion of picture, text and attributes into one embedding."""

    kind: Literal["early", "late", "attention"] = "attention"
    modality_dropout: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of products whose picture is masked in a step of fine-tuning, and share of those
    whose text is; never both of one product."""


class FinetuneSettings(StrictModel):
    """Fine-tuning on the source category, then training a new head on the target category."""

    source: str | tuple[str, ...] = "auto"
    """First levels of ``product_type`` to learn from; ``auto`` takes the largest."""
    epochs: Positive = 12
    batch_size: Positive = 128
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    target_group: str = ""
    """Value of the items' column ``group``: these products are the target, whatever their types."""
    target_shots: Positive = 20
    """Labelled products per class for the target's head."""
    l2_sp: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the initial weights."""
    align: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the loss that aligns a product's picture with its text."""
    class_balance: Fraction = 0.0
    """0 weighs all labels equally, 1 all classes."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better validation after which training stops; 0 never stops."""


Weight = Annotated[float, Field(ge=0)]


class EventWeights(StrictModel):
    """Weight of an event by its type; 0 leaves the type out."""

    view: Weight = 1.0
    click: Weight = 1.0
    favourite: Weight = 1.0
    cart: Weight = 1.0
    purchase: Weight = 1.0


class TrainingSettings(StrictModel):
    """Methods of training, one per job; ``auto`` chooses by validation in the training data."""

    adaptation: Literal["none", "adabn", "dann", "rtn", "dan", "cdan", "mcc", "auto"] = "auto"
    """Adaptation of the heads of type, colour and material to products that state nothing."""
    features: Literal["pooled", "inner-stages", "auto"] = "pooled"
    """Features of the image tower that the heads read in addition to the embedding."""
    few_shot: Literal["probe", "whitened", "auto"] = "auto"
    """Fit of the target's head to a few labels per class."""
    budget_s: Positive = 300
    """Seconds for all validations of ``auto``."""
    event_weights: EventWeights = EventWeights()


class TowerTuningSettings(StrictModel):
    """Fine-tuning of the image tower on the source category's pictures."""

    mode: Literal["heads-only", "last-stage", "full"] = "heads-only"
    """``heads-only`` freezes the tower; ``last-stage`` tunes its lowest-resolution stage,
    ``full`` all stages with gradual unfreezing."""
    size: Annotated[int, Field(ge=32)] = 160
    """Picture height and width in pixels during tuning."""
    epochs: Positive = 6
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    l2_sp: Annotated[float, Field(ge=0)] = 1e-2
    """λ of the distance to the pretrained weights; 0 disables it."""
    balance: Literal["sampler", "weights", "none"] = "sampler"
    augment: bool = True
    bf16: bool = True
    """Forward pass in bfloat16; weights stay float32."""


class KnowledgeSettings(StrictModel):
    """Attributes of the products."""

    tagger_data: Path | None = None
    """Titles with marked spans, one JSON object per line, on which a tagger is trained."""


class RobotSettings(StrictModel):
    """Bounds on what events of one unit, or of one API key, count in training and popularity."""

    daily: Positive = 1
    """Events of one type with one product that count per unit and day."""
    quarantine: bool = True
    """Count no event of a unit above ``burst``, and none with a product above ``fixation``."""
    burst_events: Positive = 300
    """Events of a unit on a day, at least, and multiple of what 95 % of the days have."""
    burst_factor: Annotated[float, Field(ge=1)] = 20.0
    fixation_days: Positive = 5
    """Days of a unit with one product, at least, and multiple of what 95 % of the pairs have."""
    fixation_factor: Annotated[float, Field(ge=1)] = 6.0
    key_burst_events: Positive = 1_000
    """Events through an API key on a day, at least, and multiple of the median of its days."""
    key_burst_factor: Annotated[float, Field(ge=1)] = 10.0


class BlendSettings(StrictModel):
    """Signals that are added to the scorer, and the fit of their weights."""

    enabled: bool = True
    """False ranks by the scorer alone."""
    half_life_days: Annotated[float, Field(gt=0)] = 60.0
    """Half-life of an interaction in the links."""
    ridge: Annotated[float, Field(gt=0)] = 2.0
    """λ of the links, in units of an item's mean weight."""
    linked_items: Positive = 8000
    """Number of most frequent items that are linked directly."""
    links_per_item: Positive = 200
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training data on which the weights are fitted."""
    dropped_items: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of items whose behaviour is dropped while the weights are fitted."""
    max_cases: Positive = 1000


class ScorerSettings(StrictModel):
    """The Siamese scorer, trained contrastively, and the signals blended with it."""

    width: Positive = 128
    epochs: Positive = 12
    max_steps: Positive = 500
    """Maximum number of batches, regardless of the number of events; bounds the training time."""
    batch_size: Positive = 256
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    max_history: Positive = 50
    temperature: Annotated[float, Field(gt=0)] = 0.07
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    hard_negatives: Annotated[int, Field(ge=0, le=50)] = 1
    """Neighbours of each positive that are used as negatives."""
    newcomer_days: Annotated[float, Field(ge=0)] = 7.0
    """Days in which a shopper is a newcomer, bounded by what others do; 0 bounds nothing."""
    blend: BlendSettings = BlendSettings()


class TrackingSettings(StrictModel):
    """Destination of training losses and accuracies."""

    kind: Literal["tensorboard", "mlflow", "none"] = "tensorboard"
    folder: str = ""
    """Empty: the workspace's ``runs``."""
    uri: str = ""
    """An MLflow server (``http://…``) instead of a folder."""


class EvaluationSettings(StrictModel):
    """Splits and cut-offs of ``evaluate``."""

    k: tuple[Positive, ...] = (10, 20)
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Latest share of the events, or share of baskets, held out for testing."""
    cold_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of items held out entirely for the cold split."""


class WorkerSettings(StrictModel):
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
    gpu_memory: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a GPU's memory for one worker; 0 divides 90 % of it among the workers of both models
    and of a second version."""


class RetrievalSettings(StrictModel):
    """The items that the recommender's workers rank."""

    retrieve: Positive = 400
    """Number of items that reach the scorer if a request names no candidates."""
    min_confidence: Fraction = 0.6
    """Minimum confidence of inferred attributes, for filters and explanations."""


class ModelServingSettings(WorkerSettings):
    """Serving of one model by TorchServe: its ``model-config.yaml``."""

    max_batch_delay_ms: Annotated[int, Field(ge=1, le=1000)] = 1
    """At least 1: TorchServe reads 0 as 100 ms. A lone request waits the full time; under load,
    batches fill while the workers are busy."""
    workers: Positive = 1
    response_timeout_s: Positive = 30
    queue_size: Positive = 64


class RecommenderServingSettings(ModelServingSettings, RetrievalSettings):
    """Serving of the recommender by TorchServe."""


class IndexSettings(StrictModel):
    """Nearest-neighbour search over the items."""

    ann_items: Positive = 100_000
    """Maximum number of items for exact search; above it, search is approximate."""


class Limits(StrictModel):
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


class ArchiveSettings(StrictModel):
    """Contents of the archives, and how they are served."""

    runtime: Literal["auto", RuntimeKind] = "auto"
    precision: Literal["auto", Precision] = "auto"
    """Precision of the encoder. ``auto`` selects the fastest runtime and precision that passed
    the gate on the exporting machine's CPU; a named one that did not pass is an error."""
    encoder: ModelServingSettings = ModelServingSettings()
    recommender: RecommenderServingSettings = RecommenderServingSettings()
    limits: Limits = Limits()


class HistorySettings(EventWeights):
    """Histories from the event store, for requests that bring none."""

    items: Annotated[int, Field(ge=0, le=200)] = 50
    """Maximum number of products; 0 answers such requests without a history."""
    half_life_days: Annotated[float, Field(gt=0)] = 30.0
    """Age at which an interaction counts half."""
    view: Weight = 1.0
    click: Weight = 2.0
    favourite: Weight = 3.0
    cart: Weight = 4.0
    purchase: Weight = 5.0


class ShopSettings(StrictModel):
    """Pages at ``/shop`` that show anonymous visitors what the API answers, without a key."""

    enabled: Literal["sample", "always", "never"] = "sample"
    """``sample``: while the drawn sample is served, with views."""
    views: bool = False
    """Visitors may look at the shop as a newcomer, or as a variant of a running rollout."""
    rate_per_s: Annotated[float, Field(gt=0)] = 100.0
    """Requests per second that each process takes from one address, pictures included."""
    currency: str = ""
    """Before each price, such as ``€``."""


class ConsoleSettings(StrictModel):
    """Pages at ``/console``, for people with a key that has the scope ``admin``."""

    enabled: Literal["sample", "always", "never"] = "sample"
    """``sample``: while the drawn sample is served on loopback."""


class GatewaySettings(StrictModel):
    """HTTP API for a shop's front end."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    processes: Positive = 1
    max_connections: Annotated[int, Field(ge=2)] = 8_192
    """Open sockets per process, within its limit of open files. The longest-idle one is closed
    for a new one."""
    max_connections_per_peer: Annotated[int, Field(ge=0)] = 0
    """Open sockets per address; 0 means half of ``max_connections``."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks of proxies whose ``X-Forwarded-For`` names the client."""
    allowed_origins: tuple[Annotated[str, Field(pattern=_ORIGIN)], ...] = ()
    """Origins such as ``https://shop.example`` whose pages may send feedback from a browser."""
    public_rate_per_s: Annotated[float, Field(gt=0)] = 10.0
    """Requests, and events, per second and process of one address with a public key."""
    max_requests: Positive = 2_000
    """Maximum number of requests in progress per process."""
    max_head_bytes: Annotated[int, Field(ge=1_024)] = 16_384
    """Size of the request line and headers."""
    receive_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds within which headers must be complete, the rest of a refused request's body arrive,
    and the next part of an answer be read."""
    keep_alive_s: Annotated[float, Field(gt=0)] = 75.0
    """Seconds that a connection is kept for its next request; longer than a load balancer's
    idle timeout."""
    worker_start_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds within which a process must serve, or it is killed and replaced."""
    worker_silence_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a heartbeat after which a serving process is killed and replaced."""
    connections: Positive = 64
    """Connections to TorchServe per model version and process; the same number of requests may
    wait for one."""
    max_body_bytes: Positive = 6_553_500
    max_items_body_bytes: Positive = 64_000_000
    """Bodies of ``/v1/items``, with the pictures of up to 1,000 products."""
    timeout_ms: Positive = 1_000
    """For requests without a deadline."""
    max_wait_share: Fraction = 0.3
    """Share of a request's time that it may wait for the model's answers to earlier requests; if
    it would wait longer, it is refused at once, and gets the fallback."""
    max_timeout_ms: Positive = 10_000
    """Later deadlines are reduced to it."""
    retry_share: Fraction = 0.1
    """Share of requests that may be sent to TorchServe a second time."""
    breaker_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A model version gets no requests after this share of its last requests failed."""
    breaker_requests: Positive = 20
    """Number of those last requests."""
    breaker_open_s: Annotated[float, Field(gt=0)] = 5.0
    """Seconds after which one request tries the version again."""
    shadow_requests: Positive = 32
    """Maximum number of shadow requests in progress; further ones are dropped."""
    placements: str = ""
    """File of placements; empty: the repository's ``configs/placements.toml``."""
    cursor_s: Annotated[float, Field(gt=0)] = 3_600.0
    """Seconds for which the cursor of a feed is valid."""
    max_value: Annotated[float, Field(gt=0)] = 1e9
    """Maximum value of a purchase, in the shop's currency; a larger one is refused."""
    record: Literal["required", "best_effort"] = "required"
    """``required`` sends only answers that are in the event store; ``best_effort`` sends all."""
    explore_share: Fraction = 0.0
    """Share of answers with one pair of neighbours in random order, to measure position bias."""
    history: HistorySettings = HistorySettings()
    shop: ShopSettings = ShopSettings()
    console: ConsoleSettings = ConsoleSettings()
    log_requests: bool = True
    traces: Literal["none", "console", "otlp"] = "none"


class LogSettings(StrictModel):
    """Logs of the processes that ``./run serve`` starts."""

    max_bytes: Annotated[int, Field(ge=100_000)] = 10_000_000
    """Size of one file; then a new one begins."""
    kept: Positive = 5
    """Number of older files per log, including those of earlier starts."""


class StoreSettings(StrictModel):
    """Storage of exposures, feedback and rollouts."""

    url: str = ""
    """``postgresql+psycopg://…`` or ``sqlite:///FILE``; empty: SQLite in the workspace."""
    spool: str = ""
    """File for rows that the store cannot take; empty: in the workspace."""
    spool_max_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    """Maximum size of that file; 0 disables the spool."""
    pseudonyms: bool = False
    """Store a keyed hash in place of each unit's id."""
    pseudonym_key: str = ""
    """File of the key; empty: in the workspace, created at the first start."""


class RolloutSettings(StrictModel):
    """The rollout controller."""

    tick_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two looks at the data."""
    look_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between two looks stored for the report; changes always are."""
    failed_looks: Positive = 30
    """Number of consecutive failed looks after which a rollout is paused."""
    lease_s: Annotated[float, Field(ge=5)] = 30.0
    """Seconds without a sign of life after which another controller takes over."""
    load_s: Annotated[float, Field(gt=0)] = 300.0
    """Seconds within which a challenger must load and answer."""
    covariate_days: Annotated[float, Field(gt=0)] = 14.0
    """Days before a rollout whose behaviour adjusts the metrics (CUPED)."""


class RetrainSettings(StrictModel):
    """Retraining, its gate, and the versions that are kept."""

    gate: Literal["better", "no-worse", "none"] = "better"
    """Required of a candidate on the newest days, compared with the served version."""
    gate_days: Annotated[float, Field(gt=0)] = 2.0
    """Newest days that are held out for the gate, as far as the served version has not seen
    them."""
    min_cases: Annotated[int, Field(ge=30)] = 200
    """Shoppers with a history and a further product in those days."""
    margin: Fraction = 0.05
    """Share of the served version's NDCG that ``no-worse`` lets a candidate lose."""
    warm_start: bool = True
    """Start from the served version's weights where they fit."""
    plan: str = ""
    """Plan of the rollouts; empty: the repository's ``configs/rollout.yaml``."""
    most_position_weight: Annotated[float, Field(ge=1)] = 10.0
    """Limit of an event's weight by its position, before all are scaled; 1 does not correct."""
    keep: Positive = 3
    """Number of retrained versions, in addition to those that are served or rolled out."""


class ShelfSettings(StrictModel):
    """The process that publishes changed products to the workers."""

    enabled: bool = True
    poll_ms: Annotated[int, Field(ge=10, le=10_000)] = 50
    """Pause between two looks at the store."""
    fold_rows: Positive = 10_000
    """Changed products above which they are folded into a new base index."""
    half_life_hours: Annotated[float, Field(gt=0)] = 72.0
    """Time in which a live event loses half its weight in the products' popularity."""
    lease_s: Annotated[float, Field(ge=5)] = 15.0
    """Seconds without a sign of life after which another host encodes."""


class DriftSettings(StrictModel):
    """Measures of drift, and the limits from which on they trigger a retraining."""

    period_days: Annotated[float, Field(gt=0)] = 7.0
    items: Annotated[int, Field(ge=20)] = 100
    """Least number of changed products that are compared."""
    shown: Annotated[int, Field(ge=20)] = 2_000
    """Least number of products in the answers of each of the two periods."""
    false_alarms: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Probability of any trigger by chance, which the measures share."""
    embeddings: Annotated[float, Field(gt=0)] = 0.02
    """Squared maximum mean discrepancy (MMD) of changed and trained products."""
    psi: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index (PSI) of a column, or of a share that rises."""
    calibration: Annotated[float, Field(gt=0)] = 0.3
    """Error of the predicted click rates, relative to the mean rate."""


WebhookEvent = Literal["paused", "rolling_back", "promoted", "aborted", "drift", "retrain_failed"]
"""A phase of a rollout, or what else a webhook tells of."""


class WebhookSettings(StrictModel):
    """Signed notifications of rollouts, drift and retraining."""

    urls: tuple[HttpUrl, ...] = ()
    """Each gets every event; ``https``, or ``http`` on this machine."""
    secret: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    """File of the key that signs; created if it is missing, needed with ``urls``."""
    events: tuple[WebhookEvent, ...] = get_args(WebhookEvent)
    allow_http: bool = False
    """Also send to other machines without TLS."""

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        if self.urls and self.secret is None:
            raise ValueError("urls need a secret, the file of the key that signs")
        secure = all(url.scheme == "https" or url.host in _LOCAL for url in self.urls)
        if not (secure or self.allow_http):
            raise ValueError("urls must begin with https://, or name this machine; or allow_http")
        return self


class Settings(StrictModel):
    """The whole file. Every section and key is optional."""

    seed: int = 7
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch's threads in training; 0 uses ``OMP_NUM_THREADS`` if it is set, else every core."""
    sample: SampleSettings = SampleSettings()
    image: ImageTowerSettings | None = ImageTowerSettings()
    text: TextTowerSettings | None = TextTowerSettings()
    attributes: AttributeSettings = AttributeSettings()
    fusion: FusionSettings = FusionSettings()
    training: TrainingSettings = TrainingSettings()
    tower: TowerTuningSettings = TowerTuningSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    scorer: ScorerSettings = ScorerSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    tracking: TrackingSettings = TrackingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    index: IndexSettings = IndexSettings()
    archive: ArchiveSettings = ArchiveSettings()
    stall_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds after which ``./run serve`` gives up on a process that starts."""
    gateway: GatewaySettings = GatewaySettings()
    logs: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings()
    rollout: RolloutSettings = RolloutSettings()
    retrain: RetrainSettings = RetrainSettings()
    shelf: ShelfSettings = ShelfSettings()
    drift: DriftSettings = DriftSettings()
    robots: RobotSettings = RobotSettings()
    webhooks: WebhookSettings = WebhookSettings()


def settings_values(table: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings as ``{"finetune.epochs": "12"}``."""
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= settings_values(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def load_settings(path: Path) -> Settings:
    """Read a settings file."""
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
