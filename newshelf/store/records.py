"""Records of the event store: what callers write to it and what it sums up for them.

A *unit* is whom variants are assigned to: a shopper, or an anonymous visitor. It is the front
end's own id; nothing else about the person is stored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from newshelf.catalog.schema import Id

Floats = NDArray[np.float64]
FeedbackType = Literal["view", "click", "favourite", "cart", "purchase"]
Variant = Literal["default", "control", "challenger", "interleaved"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class _Record(BaseModel):
    # A score may be infinite: JSON's null could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ExposedItem(_Record):
    """One product of an answer."""

    item_id: Id
    position: int = Field(ge=1)
    score: float
    source: str
    """``model``, ``similar``, ``category`` or ``popular``."""
    propensity: float = Field(gt=0, le=1)
    """Probability of this product at this position, before the unit was assigned. Off-policy
    estimates divide by it."""


class Exposure(_Record):
    """One answered request."""

    request_id: Id
    unit: Id
    at: datetime
    """With its time zone, UTC."""
    rollout: str | None = None
    """None when no rollout was running."""
    variant: Variant = "default"
    """``default``: served by the old version, outside the experiment."""
    model_version: str
    index_version: str
    fallback: bool = False
    status: int = 200
    latency_ms: float = Field(ge=0)
    items: tuple[ExposedItem, ...]
    placement: str | None = None
    """Where on the shop's pages the answer is shown."""
    kind: str | None = None
    """Which of the kinds of recommendations it is; None for the default."""
    rules: Mapping[str, tuple[int, ...]] = {}
    """Rule → positions of the products that it touched."""


class Feedback(_Record):
    """One action of a shopper on a product."""

    event_id: Id
    """The front end's; an event that is sent twice is stored once."""
    event_type: FeedbackType
    item_id: Id
    at: datetime
    request_id: Id | None = None
    """Of the answer that showed the product. Without it the event is joined to the unit's last
    exposure of the product within the window."""
    unit: Id | None = None
    value: float | None = Field(default=None, ge=0)
    """Revenue of a purchase, in the shop's currency."""
    key_name: str | None = None
    """Of the API key through which it came."""


class ShadowAnswer(_Record):
    """The challenger's answer to a copied request, compared with control's."""

    rollout: str = Field(min_length=1, max_length=200)
    request_id: Id
    at: datetime
    latency_ms: float = Field(ge=0)
    """Until the challenger answered, failed, or was cancelled."""
    error: bool = False
    overlap: float | None = Field(default=None, ge=0, le=1)
    """Share of control's products that the challenger shows too; None after an error."""
    score_drift: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Mean absolute score difference of the products that both show, in standard deviations of
    control's scores of this answer; None without such products or without deviation."""


FeedbackOutcome = Literal[
    "stored",
    "duplicate",
    "unjoined",
    "spooled",
    "conflict",
    "unknown_request",
    "unknown_item",
    "before_answer",
    "erased",
]
"""Result of storing one event; those up to ``spooled`` are kept. See docs/event-store.md."""


@dataclass(frozen=True)
class StoredFeedback:
    """An event with the answer it is joined to."""

    event_id: str
    event_type: str
    item_id: str
    at: datetime
    unit: str
    value: float | None
    request_id: str | None
    """None, like the next four, when no answer showed the product."""
    rollout: str | None
    variant: str | None
    position: int | None
    source: str | None
    """Of the product in the answer."""
    key_name: str | None = None
    """Of the API key through which it came."""


BUCKETS = 10_000


class TrafficSplit(_Record):
    """The split of one running rollout, as the gateway serves it."""

    rollout: str
    salt: str
    """Unique to the rollout, so that two rollouts are independent."""
    control: str
    """Version of the recommender for control and for units outside the experiment."""
    challenger: str
    share: float = Field(ge=0, le=0.5)
    """Of the units that see the challenger; control has the same share. A larger share only adds
    units."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Of the units that are in no rollout, by a separate constant salt."""
    shadow: bool = False
    """Copy requests to the challenger and answer from control."""
    interleave: bool = False
    """Units of the challenger's share see both rankings, team-drafted."""
    overrides: Mapping[str, Literal["control", "challenger"]] = {}
    """Testers' units; the analysis leaves them out."""


@dataclass(frozen=True)
class Traffic:
    """Splits and version that all gateways serve."""

    splits: tuple[TrafficSplit, ...] = ()
    """Of the running rollouts, oldest first."""
    version: str = ""
    """Of the recommender, for units without a split; empty: TorchServe's default."""


@dataclass(frozen=True)
class Assignment:
    """Variant and version of one unit."""

    variant: Variant
    version: str
    bucket: int
    """0 to ``BUCKETS`` − 1."""
    counted: bool
    propensity: float
    """Probability of this variant before the unit was known."""


MOST_LATENCIES = 20_000
"""Mean size of a latency sample: places a p99 to within 0.1 % of the ranks."""


def halvings(requests: int) -> int:
    """Return how many times a sample of this many latencies has been halved."""
    return max(0, math.ceil(math.log2(max(requests, 1) / MOST_LATENCIES)))


@dataclass(frozen=True, eq=False)
class UnitTotals:
    """Counts of one variant, ``(units,)`` each; one unit's requests are not independent."""

    requests: Floats
    """Answers with at least one product."""
    shown: Floats
    """Products in them."""
    clicks: Floats
    """Clicked products, each once per answer."""
    purchases: Floats
    revenue: Floats
    ndcg: Floats
    """NDCG of the clicked positions, summed over the unit's answers with a click."""
    ndcg_requests: Floats
    """Answers with a click."""
    before: Mapping[str, Floats]
    """The same counts, summed over a window before the rollout: covariates of CUPED. Zero for
    units that were not seen then."""
    units: Sequence[str] = ()
    """Unit ids, in the order of the rows."""

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, eq=False)
class VariantHealth:
    """Service quality of one variant."""

    requests: int
    errors: int
    """Answers with a status of 500 or more, or by the fallback."""
    fallbacks: int
    empty: int
    latencies_ms: Floats
    """``(requests,)``, or a uniform sample of them, halved ``halvings(requests)`` times."""
    items: Mapping[str, int]
    """Product → number of times it was shown."""
    units: int


@dataclass(frozen=True, eq=False)
class Observation:
    """Everything a decision is based on, without testers' units."""

    seconds_in_step: float
    totals: Mapping[str, UnitTotals]
    """By variant, since the rollout's first exposure: ``control`` and ``challenger`` always,
    ``interleaved`` if it was served."""
    health: Mapping[str, VariantHealth]
    """By variant, of the current step only, so that a fixed fault stops counting."""
    double_exposed: int
    """Units seen as control and as challenger or interleaved: assignment is broken. (A unit may
    move from interleaved to challenger; both are the challenger's share.)"""
    shadow: Mapping[str, float]
    """Summary of the shadow phase: ``requests``, ``errors``, ``overlap`` (mean share of equal
    products in the top k), ``score_drift`` (mean absolute score difference, in standard
    deviations of control's), ``p99_ms``, and ``p99_low_ms``, a lower bound of the true p99 that
    holds at every look (absent while too little is known). Empty outside the phase."""
    versions_ready: bool
    """Whether both versions answer a readiness request."""
    credits: Mapping[str, Floats] = field(default_factory=dict)
    """By team (``control``, ``challenger``) of interleaved answers: ``(units,)`` clicked products
    that the team drafted. Empty without interleaving."""
