"""Team-draft interleaving: both rankings in one answer, and clicks say which is liked better.

Radlinski, Kurup & Joachims (2008), "How does clickthrough data reflect retrieval quality?",
algorithm 2. Two captains pick in turns the best product that is left of their ranking; a coin
says who begins each round. A shopper compares the rankings directly, which needs far fewer
shoppers than a split.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
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
    """The probability of this product at this position, over all ways the coins may fall."""


@dataclass(frozen=True)
class _State:
    """What is picked is the first ``control`` of one ranking and the first ``challenger`` of the
    other: a captain always takes the first that is left. So few states are possible.
    """

    control: int
    challenger: int
    ahead: Team | None = None
    """The team that has one more; it waits."""


class _Draft:
    def __init__(self, control: Sequence[str], challenger: Sequence[str]) -> None:
        self._rankings: dict[Team, Sequence[str]] = {"control": control, "challenger": challenger}
        self._places: dict[Team, dict[str, int]] = {}
        for team, ranking in self._rankings.items():
            self._places[team] = {item: place for place, item in enumerate(ranking)}
            if len(self._places[team]) < len(ranking):
                raise ValueError(f"the ranking of {team} has a product twice: {list(ranking)}")

    def pickers(self, state: _State) -> list[Team]:
        """Who may pick now, each as likely; none when both rankings are used up."""
        asked: list[Team] = (
            ["control", "challenger"] if state.ahead is None else [_OTHER[state.ahead]]
        )
        able = [team for team in asked if self._left(state, team)]
        # A captain without a product left lets the other one go on alone.
        return able or [team for team in _OTHER if self._left(state, team)]

    def pick(self, state: _State, team: Team) -> tuple[str, _State]:
        """The product that a captain takes, and what is left then."""
        item = self._rankings[team][getattr(state, team)]
        ahead = None if state.ahead == _OTHER[team] else team
        control = self._past_picked("control", state.control, state.challenger, item)
        challenger = self._past_picked("challenger", state.challenger, state.control, item)
        return item, _State(control, challenger, ahead)

    def _left(self, state: _State, team: Team) -> bool:
        return bool(getattr(state, team) < len(self._rankings[team]))

    def _past_picked(self, team: Team, place: int, other_place: int, item: str) -> int:
        """The first place from ``place`` on whose product neither captain has."""
        ranking, others = self._rankings[team], self._places[_OTHER[team]]
        while place < len(ranking) and (
            ranking[place] == item or others.get(ranking[place], other_place) < other_place
        ):
            place += 1
        return place


def team_draft(
    control: Sequence[str], challenger: Sequence[str], k: int, random: Random
) -> list[DraftedItem]:
    """Interleave two rankings.

    Args:
        control: products, the best first, each once.
        challenger: likewise.
        k: products of the answer; fewer when both rankings have fewer.
        random: of the coins. Seeded with the request's id, a repeated request is answered alike.

    Raises:
        ValueError: a ranking has a product twice.
    """
    draft = _Draft(control, challenger)
    propensities = _propensities(draft, k)
    state, drafted = _State(0, 0), []
    for at_position in propensities:
        team = random.choice(draft.pickers(state))
        item, state = draft.pick(state, team)
        drafted.append(DraftedItem(item, team, at_position[item]))
    return drafted


def draft_propensities(
    control: Sequence[str], challenger: Sequence[str], k: int
) -> list[dict[str, float]]:
    """By position, the first first: product → probability that the draft puts it there.

    Exact, by following all coins at once: after p picks there are at most (p + 1)² states.

    Raises:
        ValueError: a ranking has a product twice.
    """
    return _propensities(_Draft(control, challenger), k)


def _propensities(draft: _Draft, k: int) -> list[dict[str, float]]:
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


def credit(drafted: Iterable[DraftedItem], clicked: Collection[str]) -> dict[Team, int]:
    """Clicked products by the team that drafted them."""
    counts = Counter(one.team for one in drafted if one.item_id in clicked)
    return {team: counts[team] for team in _OTHER}
