"""Sums up a rollout for its analysis: by unit for the metrics, by variant for the guardrails."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.split import Split
from newshelf.rollout.store.clock import span_us, to_us
from newshelf.rollout.store.health import variant_health
from newshelf.rollout.store.schema import exposures, feedback, journal
from newshelf.rollout.store.unit_totals import Sums, sum_up, totals, whatever_variant
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
    done = and_(
        feedback.c.rollout == name,
        feedback.c.variant.in_(_IN_EXPERIMENT),
        feedback.c.unit.not_in(testers),
    )
    during: dict[str, dict[str, Sums]] = {variant: {} for variant in _COMPARED}
    for (variant, unit), mine in sum_up(connection, counted, done).items():
        during.setdefault(variant, {})[unit] = mine
    before = _before(connection, counted, span_us(before_window_s))
    in_step = and_(counted, exposures.c.at_us >= to_us(step_since))
    treated = during["challenger"].keys() | during.get("interleaved", {}).keys()
    return Observed(
        totals={variant: totals(sums, before) for variant, sums in during.items()},
        health={
            variant: variant_health(connection, and_(in_step, exposures.c.variant == variant))
            for variant in during
        },
        double_exposed=len(during["control"].keys() & treated),
    )


def _testers(connection: Connection, name: str) -> set[str]:
    """Units that were ever overridden: the rollout's end takes its split away."""
    query = select(journal.c.split).where(journal.c.rollout == name, journal.c.split.is_not(None))
    splits = connection.scalars(query.distinct())
    return {unit for text in splits for unit in Split.model_validate_json(text).overrides}


def _before(
    connection: Connection, counted: ColumnElement[bool], window_us: int
) -> Mapping[str, Sums]:
    """Of the counted units, in the window that ended with the rollout's first exposure.

    Both what was shown and what was done lie before it: nothing here can be an effect.
    """
    # Not min(), nor of all variants at once: it would look at every answer.
    first_of_all = select(exposures.c.at_us).where(counted).order_by(exposures.c.at_us).limit(1)
    moments = [
        connection.scalar(first_of_all.where(exposures.c.variant == variant))
        for variant in _IN_EXPERIMENT
    ]
    began_us = min((at_us for at_us in moments if at_us is not None), default=None)
    if began_us is None:
        return {}
    units = select(exposures.c.unit).where(counted).scalar_subquery()
    first, last = began_us - window_us, began_us - 1
    shown = and_(exposures.c.at_us.between(first, last), exposures.c.unit.in_(units))
    done = and_(
        feedback.c.at_us.between(first, last),
        feedback.c.request_id.is_not(None),
        feedback.c.unit.in_(units),
    )
    return whatever_variant(sum_up(connection, shown, done))
