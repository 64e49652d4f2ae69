"""Assignment of units to variants by the rollouts that are served, and interleaved answers.

A unit is hashed with the rollout's salt into one of 10,000 buckets. The challenger takes buckets
from 0 upwards, control the same number from the top downwards. So a ramp only adds units, no unit
changes sides, and every replica of the gateway gives the same answer without shared state.

A salt per rollout makes rollouts independent; otherwise the same shoppers would be the first to
see every new model (Kohavi et al. 2020, Trustworthy Online Controlled Experiments, ch. 4). The
holdout's salt is constant, so that it keeps its shoppers.

Team-draft interleaving (Radlinski, Kurup & Joachims 2008, "How does clickthrough data reflect
retrieval quality?", algorithm 2) puts both rankings into one answer. Two teams pick in turns the
best remaining product of their ranking; a coin decides who begins each round. A shopper compares
the rankings directly, which needs far fewer shoppers than a split.
"""

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Literal

from newshelf.store.records import BUCKETS, Assignment, Traffic, TrafficSplit

HOLDOUT_SALT = "newshelf holdout"
_SALT_BYTES = 16
_HASH_BYTES = 8
"""64 bits: bucket probabilities differ by less than 1 in 10^15."""


def new_salt() -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    return secrets.token_hex(_SALT_BYTES)


def bucket_of(salt: str, unit: str) -> int:
    """Return the bucket of a unit, 0 to ``BUCKETS`` − 1, by BLAKE2b (RFC 7693)."""
    text = f"{len(salt)}:{salt}{unit}"
    # JSON ids may contain lone surrogates.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "little") % BUCKETS


def assign(split: TrafficSplit, unit: str) -> Assignment:
    """Assign a unit, a shopper or visitor by the front end's id, to a variant.

    A tester's variant is fixed, so its propensity is 1.
    """
    bucket = bucket_of(split.salt, unit)
    override = split.overrides.get(unit)
    if override is not None:
        version = split.challenger if override == "challenger" else split.control
        return Assignment(override, version, bucket, counted=False, propensity=1.0)
    taken = 0 if split.shadow else round(split.share * BUCKETS)
    held_out = round(split.holdout * BUCKETS)
    inside = taken / BUCKETS * (1 - held_out / BUCKETS)
    if not held_out or bucket_of(HOLDOUT_SALT, unit) >= held_out:
        if bucket < taken:
            variant: Literal["interleaved", "challenger"] = (
                "interleaved" if split.interleave else "challenger"
            )
            return Assignment(variant, split.challenger, bucket, counted=True, propensity=inside)
        if bucket >= BUCKETS - taken:
            return Assignment("control", split.control, bucket, counted=True, propensity=inside)
    return Assignment("default", split.control, bucket, counted=False, propensity=1 - 2 * inside)


Team = Literal["control", "challenger"]
_OTHER: dict[Team, Team] = {"control": "challenger", "challenger": "control"}


@dataclass(frozen=True)
class Tester:
    """A request that sees one variant of a rollout and is not counted in it."""

    rollout: str
    variant: Team


@dataclass(frozen=True)
class DraftedItem:
    """One product of the interleaved answer."""

    item_id: str
    team: Team
    propensity: float
    """Probability of this product at this position, over all coin tosses."""


@dataclass(frozen=True)
class _State:
    """The state of a draft: each team has picked or skipped a prefix of its ranking.

    A team always takes its first remaining product, so there are few states.
    """

    control: int
    challenger: int
    ahead: Team | None = None
    """Team with one more pick; the other is next."""


class _Draft:
    def __init__(self, control: Sequence[str], challenger: Sequence[str]) -> None:
        self._rankings: dict[Team, Sequence[str]] = {"control": control, "challenger": challenger}
        self._places: dict[Team, dict[str, int]] = {}
        for team, ranking in self._rankings.items():
            self._places[team] = {item: place for place, item in enumerate(ranking)}
            if len(self._places[team]) < len(ranking):
                raise ValueError(f"the ranking of {team} has a product twice: {list(ranking)}")

    def pickers(self, state: _State) -> list[Team]:
        """Return the teams that may pick now, equally likely; empty at the end of both rankings."""
        turn: list[Team] = (
            ["control", "challenger"] if state.ahead is None else [_OTHER[state.ahead]]
        )
        able = [team for team in turn if self._left(state, team)]
        # A team without remaining products leaves the picks to the other.
        return able or [team for team in _OTHER if self._left(state, team)]

    def pick(self, state: _State, team: Team) -> tuple[str, _State]:
        """Return the product that a team picks, and the next state."""
        item = self._rankings[team][getattr(state, team)]
        ahead = None if state.ahead == _OTHER[team] else team
        control = self._past_picked("control", state.control, state.challenger, item)
        challenger = self._past_picked("challenger", state.challenger, state.control, item)
        return item, _State(control, challenger, ahead)

    def _left(self, state: _State, team: Team) -> bool:
        return bool(getattr(state, team) < len(self._rankings[team]))

    def _past_picked(self, team: Team, place: int, other_place: int, item: str) -> int:
        """Return the first place from ``place`` on whose product neither team has picked."""
        ranking, others = self._rankings[team], self._places[_OTHER[team]]
        while place < len(ranking) and (
            ranking[place] == item or others.get(ranking[place], other_place) < other_place
        ):
            place += 1
        return place


def team_draft(
    control: Sequence[str], challenger: Sequence[str], k: int, random: Random
) -> list[DraftedItem]:
    """Interleave two rankings of distinct products, best first; ``ValueError`` for a duplicate.

    Seed ``random`` with the request id, so that a retry gets the same answer.
    """
    draft = _Draft(control, challenger)
    state, drafted = _State(0, 0), []
    for at_position in draft_propensities(control, challenger, k):
        team = random.choice(draft.pickers(state))
        item, state = draft.pick(state, team)
        drafted.append(DraftedItem(item, team, at_position[item]))
    return drafted


def draft_propensities(
    control: Sequence[str], challenger: Sequence[str], k: int
) -> list[dict[str, float]]:
    """Return by position: product → probability that the draft puts it there.

    The result is exact: all coin tosses are followed at once, with at most (p + 1)² states after
    p picks.
    """
    draft = _Draft(control, challenger)
    states: dict[_State, float] = {_State(0, 0): 1.0}
    positions: list[dict[str, float]] = []
    for _ in range(k):
        at_position: defaultdict[str, float] = defaultdict(float)
        following: defaultdict[_State, float] = defaultdict(float)
        for state, probability in states.items():
            pickers = draft.pickers(state)
            for team in pickers:
                item, after = draft.pick(state, team)
                at_position[item] += probability / len(pickers)
                following[after] += probability / len(pickers)
        if not at_position:
            break
        positions.append(dict(at_position))
        states = following
    return positions


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Routed:
    """The target of one request."""

    assigned: Assignment
    split: TrafficSplit | None
    """None when no rollout is served."""


class Router:
    """Keeps what the store said last: a store that is away changes nobody's variant."""

    def __init__(self, read: Callable[[], Traffic]) -> None:
        self._read = read
        self._read_s = time.monotonic()
        self.current = Traffic()

    @property
    def age_s(self) -> float:
        """Since the store was read."""
        return time.monotonic() - self._read_s

    async def refresh(self) -> None:
        """Read the store once; failures are logged and tried again later."""
        try:
            # The store may block, and requests must not wait for it.
            self.current = await asyncio.to_thread(self._read)
        except Exception as error:
            _LOG.warning(
                "the rollouts could not be read and stay as they were %.0f s ago: %s",
                self.age_s,
                error,
            )
            return
        self._read_s = time.monotonic()

    def route(self, unit: str, tester: Tester | None = None) -> Routed:
        """Return the target of a unit's requests: the first rollout's that it takes part in."""
        outside: Routed | None = None
        splits = self.current.splits if unit else ()
        if tester is not None:
            own = {"overrides": {unit: tester.variant}}
            named = [one for one in self.current.splits if one.rollout == tester.rollout]
            splits = tuple(one.model_copy(update=own) for one in named) or splits
        for split in splits:
            routed = Routed(assign(split, unit), split)
            if routed.assigned.variant != "default":
                return routed
            outside = outside or routed
        version = self.current.version
        return outside or Routed(
            Assignment("default", version, 0, counted=False, propensity=1.0), None
        )
