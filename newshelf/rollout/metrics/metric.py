"""A metric: the sum of one thing over the sum of another, or per unit."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from newshelf.rollout.totals import UnitTotals

__all__ = ["Count", "Metric"]

Floats = NDArray[np.float64]
Count = Literal["requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests"]
"""A column of ``UnitTotals``."""


@dataclass(frozen=True)
class Metric:
    """Σ numerator / Σ denominator over the units of a variant."""

    name: str
    numerator: Count
    denominator: Count | None
    """None divides by the number of units: a mean."""

    def columns(self, totals: UnitTotals) -> tuple[Floats, Floats]:
        """Numerator and denominator, ``(units,)`` each."""
        top: Floats = getattr(totals, self.numerator)
        bottom = (
            np.ones(len(totals)) if self.denominator is None else getattr(totals, self.denominator)
        )
        return top, bottom

    def covariates(self, totals: UnitTotals) -> Floats:
        """``(units, covariates)``: the same counts before the rollout, and whether the unit was
        known then, since a zero of a new shopper is another zero.
        """
        names = [name for name in (self.numerator, self.denominator) if name is not None]
        before = [totals.before[name] for name in names if name in totals.before]
        if "requests" in totals.before:
            before.append((totals.before["requests"] > 0).astype(np.float64))
        return np.column_stack(before) if before else np.empty((len(totals), 0))
