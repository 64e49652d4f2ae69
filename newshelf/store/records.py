"""What is written down of every answer, and of what shoppers did with it.

A *unit* is whom variants are assigned to: a shopper, or a visitor without a name. It is the
front end's own id; nothing else about the person is kept.

What came of a rollout so far, as the analysis needs it and the store sums it up.

How units are split between the versions, as the gateway reads it from the store.

What became of an event that a front end sent.
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

FeedbackType = Literal["view", "click", "cart", "purchase"]
Variant = Literal["default", "control", "challenger", "interleaved"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


class _Row(BaseModel):
    # A score may be infinite: as null, which is JSON's, it could not be read back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ExposedItem(_Row):
    """One product that was shown."""

    item_id: Id
    position: int = Field(ge=1)
    """From 1, the first."""
    score: float
    source: str
    """``model``, ``similar``, ``category`` or ``popular``."""
    propensity: float = Field(gt=0, le=1)
    """The probability with which this product was put at this position, given what was known
    before the unit was assigned. Off-policy estimates divide by it."""


class Exposure(_Row):
    """One answered request."""

    request_id: Id
    unit: Id
    at: datetime
    """With its time zone, UTC."""
    rollout: str | None = None
    """None when no rollout was running."""
    variant: Variant = "default"
    """``default``: served by the old version, and not in the experiment."""
    model_version: str
    index_version: str
    fallback: bool = False
    """Answered without the model."""
    status: int = 200
    """As the shopper's front end was answered."""
    latency_ms: float = Field(ge=0)
    items: tuple[ExposedItem, ...]


class Feedback(_Row):
    """Something that a shopper did with a product."""

    event_id: Id
    """The front end's; the same event sent twice is kept once."""
    event_type: FeedbackType
    item_id: Id
    at: datetime
    request_id: Id | None = None
    """Of the answer that showed it. Without one it is joined to the unit's last exposure of the
    product within the window."""
    unit: Id | None = None
    value: float | None = Field(default=None, ge=0)
    """Revenue, in the shop's currency; of a purchase."""


Floats = NDArray[np.float64]

MOST_LATENCIES = 20_000
"""In a sample, on average: enough for a p99 to within a tenth of a per cent of the ranks."""


def halvings(requests: int) -> int:
    """How often a sample of that number of latencies has been halved."""
    return max(0, math.ceil(math.log2(max(requests, 1) / MOST_LATENCIES)))


@dataclass(frozen=True, eq=False)
class UnitTotals:
    """Counted units of one variant, one row each, and what they did.

    Arrays are ``(units,) float64``. The unit is what was randomised, so it is also what is
    counted: requests of one shopper are not independent of each other.
    """

    requests: Floats
    """Answers that showed something."""
    shown: Floats
    """Products in them."""
    clicks: Floats
    """Shown products that were clicked, each once per answer."""
    purchases: Floats
    revenue: Floats
    ndcg: Floats
    """Sum over the unit's answers with a click of the NDCG of the clicked positions."""
    ndcg_requests: Floats
    """Answers with a click."""
    before: Mapping[str, Floats]
    """The same names, summed over a window before the rollout began: covariates of CUPED.
    Zero for units that were not seen then."""
    units: Sequence[str] = ()
    """Their ids, in the order of the rows."""

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, eq=False)
class VariantHealth:
    """How one variant served."""

    requests: int
    errors: int
    """Answered with a status of 500 or more, or not by this variant's model at all."""
    fallbacks: int
    """Answered without the model."""
    empty: int
    """Answered with no product."""
    latencies_ms: Floats
    """``(requests,)``, or a uniform sample of them, halved ``halvings(requests)`` times."""
    items: Mapping[str, int]
    """How often each product was shown."""
    units: int
    """Different units that were seen."""


@dataclass(frozen=True, eq=False)
class Observation:
    """All that a decision looks at."""

    seconds_in_step: float
    totals: Mapping[str, UnitTotals]
    """By variant: ``control`` and ``challenger``; since the rollout's first exposure."""
    health: Mapping[str, VariantHealth]
    """By variant; of the current step only, so that a mended fault does not count for ever."""
    double_exposed: int
    """Units that were seen in two variants: assignment is broken."""
    shadow: Mapping[str, float]
    """Of the shadow phase: ``requests``, ``errors``, ``overlap`` (mean share of equal products
    in the top k), ``score_drift`` (mean absolute difference of scores, in standard deviations
    of control's), ``p99_ms``, and ``p99_low_ms``, which the true p99 is at least, at every look
    (absent while little is known). Empty otherwise."""
    versions_ready: bool
    """Whether both versions answer a request for readiness."""
    credits: Mapping[str, Floats] = field(default_factory=dict)
    """Of interleaved answers, by team (``control``, ``challenger``): ``(units,)`` clicked
    products that the team had drafted. Empty otherwise."""


BUCKETS = 10_000


class TrafficSplit(BaseModel):
    """One running rollout, as far as serving it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rollout: str
    salt: str
    """Another one for each rollout, so that two of them are independent."""
    control: str
    """Version of the recommender that is served to control and to those outside."""
    challenger: str
    share: float = Field(ge=0, le=0.5)
    """Of the units that see the challenger; as many are control. Growing it only adds units."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Of the units that are never in a rollout, by a salt of their own."""
    shadow: bool = False
    """Copy requests to the challenger, and answer from control."""
    interleave: bool = False
    """Units of the challenger's share see both rankings, drafted by teams."""
    overrides: Mapping[str, Literal["control", "challenger"]] = {}
    """Testers' units. They are not counted in the analysis."""


@dataclass(frozen=True)
class Assigned:
    """Where one unit belongs."""

    variant: Literal["default", "control", "challenger", "interleaved"]
    version: str
    """Of the recommender that answers it."""
    bucket: int
    """0 to ``BUCKETS`` − 1."""
    counted: bool
    """Whether it is part of the experiment."""
    propensity: float
    """The probability of this variant, before the unit was known."""


Outcome = Literal[
    "stored",
    "duplicate",
    "unjoined",
    "spooled",
    "conflict",
    "unknown_request",
    "unknown_item",
    "before_answer",
]
"""``stored``: with the answer that showed the product. ``duplicate``: the event is there
already, nothing was changed. ``unjoined``: kept for training, but no answer showed the product
to the unit within the window, so no rollout counts it. ``spooled``: kept on this
machine until the store is back, and joined then. Not kept: ``conflict`` (another
event has this id), ``unknown_request`` (there is no such answer, or the event names neither a
request nor a unit), ``unknown_item`` (the answer did not show the product) and
``before_answer`` (the event happened longer before the answer than the window)."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
