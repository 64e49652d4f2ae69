"""Kinds of request, and the settings of the traffic."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from newshelf.files import StrictModel

AskedKind = Literal[
    "encode picture",
    "encode text",
    "encode both",
    "recommend history",
    "recommend candidates",
]
"""Kinds with a weight in the mix."""
ShopKind = Literal["recommend", "similar", "search", "items"]
"""Kinds with a weight in the mix of a load through the gateway."""
Kind = AskedKind | ShopKind | Literal["recommend unseen", "feedback", "bad"]
"""Kinds in a record."""

UNSEEN: Kind = "recommend unseen"
BAD: Kind = "bad"
MODEL_KINDS: tuple[Kind, ...] = (*get_args(AskedKind), UNSEEN, BAD)
KINDS: tuple[Kind, ...] = (*MODEL_KINDS, *get_args(ShopKind), "feedback")

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

_SHOP: Mapping[AskedKind, float] = {
    "encode picture": 0.5,
    "encode text": 0.5,
    "encode both": 1.0,
    "recommend history": 10.0,
    "recommend candidates": 2.0,
}


class TrafficSettings(StrictModel):
    """Shoppers who browse, and a shop that adds new products now and then."""

    via: Literal["torchserve"] = "torchserve"
    mix: Mapping[AskedKind, Weight] = _SHOP
    """Weights of the kinds; a kind without a weight is not sent."""
    popularity: Literal["zipf", "events"] = "zipf"
    """How items are chosen: drawn by Zipf's law, or replayed from the catalogue's events,
    shopper by shopper."""
    zipf_exponent: float = Field(default=1.0, ge=0)
    """The item of rank r has a share proportional to r to the power of minus this; 0 makes all
    items equally popular."""
    session_requests: float = Field(default=6.0, ge=1)
    """Mean requests per session; lengths are geometrically distributed. A replayed session has
    its original length: until its shopper paused for half an hour."""
    shoppers: Count = 20
    """Concurrent sessions."""
    longest_history: Count = 50
    """Maximum items in a history: the most recent ones."""
    cold_share: Share = 0.1
    """Share of ``recommend history`` whose last item is a product that is in no index, sent
    whole; their kind is ``recommend unseen``."""
    bad_share: Share = 0.01
    """Share of all requests that the server must refuse."""
    candidates: int = Field(default=50, ge=1, le=1000)
    """Ids in a request ``recommend candidates``."""
    k: int = Field(default=10, ge=1, le=100)
    """Items requested."""
    picture_px: tuple[Annotated[int, Field(ge=16, le=6000)], ...] = ()
    """Longest sides to which pictures are resized, drawn uniformly; empty keeps their size."""
    requests: Count = 1000
    """Requests that are prepared before the run and then sent in turn."""
    requests_mb: Count = 256
    """Memory limit of the prepared requests, in MB."""

    @model_validator(mode="after")
    def _something_is_sent(self) -> Self:
        if not sum(self.mix.values()):
            raise ValueError("the mix sends nothing: give at least one kind a weight above 0")
        return self

    def sends(self, *starts: str) -> bool:
        """Return whether a kind in the mix starts with one of these words."""
        return any(kind.startswith(starts) for kind, weight in self.mix.items() if weight)


class ShopTraffic(StrictModel):
    """Shoppers of a gateway who browse, click, buy and come back; a shop that changes products.

    Feedback has no weight: it follows from what shoppers see.
    """

    via: Literal["gateway"] = "gateway"
    mix: Mapping[ShopKind, Weight] = {"recommend": 10, "similar": 3, "search": 2, "items": 1}
    """Weights of the kinds; a kind without a weight is not sent."""
    units: Count = 500
    """Shoppers of each process; one who comes back is known by the events of earlier visits."""
    shoppers: Count = 20
    """Concurrent visits."""
    session_requests: float = Field(default=6.0, ge=1)
    """Mean requests per visit; lengths are geometrically distributed."""
    taste: Share = 0.4
    """Probability of a click on a product of the type that the shopper likes, which is hidden."""
    chance: Share = 0.03
    """Probability of a click on another product."""
    buys: Share = 0.2
    """Probability that a clicked product is put into the cart and bought."""
    bad_share: Share = 0.01
    """Share of all requests that the gateway must refuse."""
    k: int = Field(default=10, ge=1, le=100)
    """Items requested."""

    @model_validator(mode="after")
    def _shoppers_see_products(self) -> Self:
        if not sum(weight for kind, weight in self.mix.items() if kind != "items"):
            raise ValueError("no shopper comes: give recommend, similar or search a weight above 0")
        return self
