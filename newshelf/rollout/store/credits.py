"""Clicks on interleaved answers, by the team that had drafted the product."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import case, func, select
from sqlalchemy.engine import Connection

from newshelf.rollout.store.schema import feedback

__all__ = ["team_credits"]

_TEAMS = ("control", "challenger")


def team_credits(connection: Connection, rollout: str) -> Mapping[str, NDArray[np.float64]]:
    """``(units,)`` clicked products of each team, each once per answer; empty without a click.

    The gateway writes the team before the source: ``challenger/model``.
    """
    event = feedback.c
    clicked = (
        select(event.unit, event.source)
        .where(
            event.rollout == rollout,
            event.variant == "interleaved",
            event.event_type == "click",
        )
        .group_by(event.unit, event.request_id, event.item_id, event.source)
        .subquery()
    )
    by_team = [
        func.sum(case((clicked.c.source.startswith(f"{team}/", autoescape=True), 1), else_=0))
        for team in _TEAMS
    ]
    rows = connection.execute(select(*by_team).group_by(clicked.c.unit).order_by(clicked.c.unit))
    table = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(-1, len(_TEAMS))
    return {team: table[:, place] for place, team in enumerate(_TEAMS)} if len(table) else {}
