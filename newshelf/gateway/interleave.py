"""One answer from two rankings, for rollouts that compare by interleaving."""

from random import Random

from newshelf.gateway.shown import Shown
from newshelf.rollout.interleaving import team_draft

__all__ = ["interleaved"]


def interleaved(control: Shown, challenger: Shown, k: int, request_id: str) -> Shown:
    """Let both draft (see ``newshelf.rollout.interleaving``).

    Args:
        control: the answer of the old version.
        challenger: the answer of the new one.
        k: products of the answer.
        request_id: decides the coins.

    Returns:
        The drafted products, each as its team ranked it. ``sources`` name the team as well,
        so that a click can be credited: ``challenger/model``.
    """
    answers = {"control": control, "challenger": challenger}
    by_team = {team: {item["id"]: item for item in one.items} for team, one in answers.items()}
    rankings = list(by_team["control"]), list(by_team["challenger"])
    # The same request is drafted alike wherever it is answered.
    drafted = team_draft(*rankings, k, Random(request_id))  # noqa: S311 - a draw, no secret
    items = [by_team[one.team][one.item_id] for one in drafted]
    unknown = {*control.ignored, *challenger.ignored}
    return Shown(
        items,
        challenger.model_version,
        challenger.index_version,
        ignored=sorted(unknown),
        propensities=[one.propensity for one in drafted],
        sources=[f"{one.team}/{item['source']}" for one, item in zip(drafted, items, strict=True)],
    )
