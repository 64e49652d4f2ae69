"""Team-draft interleaving: both rankings in one answer; clicks show which is preferred.

Radlinski, Kurup & Joachims (2008), "How does clickthrough data reflect retrieval quality?",
algorithm 2. Two teams pick in turns the best remaining product of their ranking; a coin decides
who begins each round. A shopper compares the rankings directly, which needs far fewer shoppers
than a split.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Team = Literal["control", "challenger"]
_OTHER: dict[Team, Team] = {"control": "challenger", "challenger": "control"}


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
