"""Sums up a rollout for its analysis: by unit for the metrics, by variant for the guardrails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.split import Split
from newshelf.rollout.store.clock import span_us, to_us
from newshelf.rollout.store.health import variant_health
from newshelf.rollout.store.schema import exposures, feedback, journal
from newshelf.rollout.store.unit_totals import EMPTY, Sums, sum_by_unit, totals
from newshelf.rollout.totals import UnitTotals, VariantHealth

__all__ = ["Observed", "observe"]

_COMPARED = ("control", "challenger")
_IN_EXPERIMENT = (*_COMPARED, "interleaved")


@dataclass(frozen=True, eq=False)
class Observed:
    """What the store can tell for an ``Observation``.

    By variant: ``control`` and ``challenger`` always, ``interleaved`` when it was served.
    Testers' units (the overrides of the rollout's splits) are in none of it.
    """

    totals: Mapping[str, UnitTotals]
    health: Mapping[str, VariantHealth]
    double_exposed: int
    """Units that were seen as control, and as challenger or interleaved too. (A unit may go
    from interleaved to challenger: both are the challenger's share.)"""


def observe(
    connection: Connection, name: str, *, step_since: datetime, before_window_s: float
) -> Observed:
    """Sum up one rollout; see ``EventStore.observe``."""
    testers = sorted(_testers(connection, name))
    counted = and_(
        exposures.c.rollout == name,
        exposures.c.variant.in_(_IN_EXPERIMENT),
        exposures.c.unit.not_in(testers),
    )
    done = and_(feedback.c.rollout == name, feedback.c.unit.not_in(testers))
    variants = _variants(connection, counted)
    before = _before(connection, counted, span_us(before_window_s))
    in_step = and_(counted, exposures.c.at_us >= to_us(step_since))
    return Observed(
        totals={one: totals(_during(connection, one, counted, done), before) for one in variants},
        health={
            one: variant_health(connection, and_(in_step, exposures.c.variant == one))
            for one in variants
        },
        double_exposed=_double_exposed(connection, counted),
    )


def _testers(connection: Connection, name: str) -> set[str]:
    """Units that were ever overridden: the rollout's end takes its split away."""
    query = select(journal.c.split).where(journal.c.rollout == name, journal.c.split.is_not(None))
    splits = connection.scalars(query.distinct())
    return {unit for text in splits for unit in Split.model_validate_json(text).overrides}


def _variants(connection: Connection, counted: ColumnElement[bool]) -> Sequence[str]:
    seen = set(connection.scalars(select(exposures.c.variant).where(counted).distinct()))
    return [one for one in _IN_EXPERIMENT if one in seen or one in _COMPARED]


def _during(
    connection: Connection, variant: str, counted: ColumnElement[bool], done: ColumnElement[bool]
) -> Mapping[str, Sums]:
    return sum_by_unit(
        connection,
        and_(counted, exposures.c.variant == variant),
        and_(done, feedback.c.variant == variant),
    )


def _before(
    connection: Connection, counted: ColumnElement[bool], window_us: int
) -> Mapping[str, Sums]:
    """Of the counted units, in the window that ended with the rollout's first exposure.

    Both what was shown and what was done lie before it: nothing here can be an effect.
    """
    began_us = connection.scalar(select(func.min(exposures.c.at_us)).where(counted))
    if began_us is None:
        return EMPTY
    units = select(exposures.c.unit).where(counted).scalar_subquery()
    first, last = began_us - window_us, began_us - 1
    return sum_by_unit(
        connection,
        and_(exposures.c.at_us.between(first, last), exposures.c.unit.in_(units)),
        and_(
            feedback.c.at_us.between(first, last),
            feedback.c.request_id.is_not(None),
            feedback.c.unit.in_(units),
        ),
    )


def _double_exposed(connection: Connection, counted: ColumnElement[bool]) -> int:
    is_control = exposures.c.variant == "control"
    both = (
        select(exposures.c.unit)
        .where(counted)
        .group_by(exposures.c.unit)
        .having(func.count().filter(is_control).between(1, func.count() - 1))
        .subquery()
    )
    return connection.scalar(select(func.count()).select_from(both)) or 0
