"""What is sent, and in which shares: the settings of the traffic."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

AskedKind = Literal[
    "encode picture",
    "encode text",
    "encode both",
    "recommend history",
    "recommend candidates",
]
"""Kinds that the mix gives a weight."""
Kind = AskedKind | Literal["recommend unseen", "bad"]
"""Kinds that a record tells apart."""

UNSEEN: Kind = "recommend unseen"
BAD: Kind = "bad"
KINDS: tuple[Kind, ...] = (*get_args(AskedKind), UNSEEN, BAD)

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


class TrafficSettings(BaseModel):
    """Shoppers who look around, and a shop that puts up new products now and then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mix: Mapping[AskedKind, Weight] = _SHOP
    """Weights of the kinds; one that is absent is not sent."""
    popularity: Literal["zipf", "events"] = "zipf"
    """Which items shoppers look at: drawn by Zipf's law, or replayed from the catalogue's
    events, shopper by shopper."""
    zipf_exponent: float = Field(default=1.0, ge=0)
    """The item of rank r is looked at in proportion to r to the power of minus this; 0 makes all
    items alike."""
    session_requests: float = Field(default=6.0, ge=1)
    """Mean of a session's requests, whose lengths are geometrically distributed. A replayed
    session is as long as it was: until its shopper paused for half an hour."""
    shoppers: Count = 20
    """Sessions that are under way at a time."""
    longest_history: Count = 50
    """The most recent items that a request names."""
    cold_share: Share = 0.1
    """Of the requests ``recommend history``: the last item is a product that no index has seen,
    sent whole; they are of the kind ``recommend unseen``."""
    bad_share: Share = 0.01
    """Of all requests: such as the server must refuse."""
    candidates: int = Field(default=50, ge=1, le=1000)
    """Ids of a request ``recommend candidates``."""
    k: int = Field(default=10, ge=1, le=100)
    """Items that are asked for."""
    picture_px: tuple[Annotated[int, Field(ge=16, le=6000)], ...] = ()
    """Longest sides of the pictures that are sent, drawn alike; none sends them as they are."""
    requests: Count = 1000
    """That are put together before the run and then sent in turns."""
    requests_mb: Count = 256
    """Fewer are, when they would take more memory than this, in MB."""

    @model_validator(mode="after")
    def _something_is_sent(self) -> Self:
        if not sum(self.mix.values()):
            raise ValueError("the mix sends nothing: give at least one kind a weight above 0")
        return self

    def sends(self, *starts: str) -> bool:
        """Whether a kind of the mix begins with one of these words."""
        return any(kind.startswith(starts) for kind, weight in self.mix.items() if weight)
