"""Sequential tests: intervals and p-values that are valid at every look at once.

*Effects.* The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
(2021, 2024, arXiv:2103.06476, eq. 9; Robbins' normal mixture), as GrowthBook publishes it. For an
estimate with variance V (the squared standard error) after ``n``::

    estimate ± √V · √( 2 · (n·ρ² + 1) / (n·ρ²) · ln( √(n·ρ² + 1) / α ) )
    ρ² = ( -2·ln α + ln(1 - 2·ln α) ) / N*

The sequence is tightest at N* and valid everywhere. GrowthBook counts units as ``n``. Only the
ratio n / N* matters, so any clock works that is proportional to 1 / V. The clock here is the
*information* 1 / V: returning shoppers add information without adding units (information as the
clock of group-sequential trials: Lan & Zucker 1993; Jennison & Turnbull 2000, ch. 11).

*Shares* (errors, empty answers). The test is exact for independent requests. Against "the share is
at most s₀" it bets on every larger share alike (Robbins' mixture; Howard, Ramdas, McAuliffe &
Sekhon 2021, arXiv:1810.08240, sec. 3, with a uniform prior cut at s₀). After k of n::

    M = 1/(1 - s₀) · ∫_{s₀}^1 θ^k (1-θ)^(n-k) dθ  /  ( s₀^k (1-s₀)^(n-k) )

While the share is at most s₀, M is a nonnegative supermartingale that starts at 1, so the
probability that it *ever* reaches 1/α is at most α (Ville 1939). Nothing is assumed to be normal,
so an error rate near 0 is tested as well as any other. The assumption is that each request fails
with the same probability or less, whatever came before: bursts of failures, such as an outage of
minutes, look like more evidence than they are.

*Quantiles* (p99 of the latencies). Whether a latency exceeds the true quantile is a coin with a
known probability, so the test of a share tells which values the quantile may have (Howard &
Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and best-arm
identification", arXiv:1906.09712). No distribution is assumed, but values are taken to be
independent. The price: an upper end needs enough values that the quantile would hardly be unseen,
about 1,000 for a p99. A sample that has grown too large is halved, and the half grows again. Each
half is tested at its own part of the level: 9/10 before the first halving, and
1/10 · 1/(h·(h+1)) after halving h. The parts sum to 1, so the level holds over all of them.

*Sample-ratio mismatch*: the variants should have the same number of units and do not. Then units
were lost (crashes, redirects, broken logging), hardly ever at random, and no metric is valid
(Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online controlled experiments"). A unit
counts once, when it is first seen in a variant. The challenger cannot change that moment, so
shoppers who return more often are no mismatch. A ``TrafficSplit`` gives both variants the same
number of buckets in every step, so each first appearance is a fair coin, also after a wider step,
and one test covers the whole rollout. The chi-square test is for one look; this is the sequential
test of the same question (Lindon & Malek 2022, "Anytime-valid inference for multinomial count
data", arXiv:2011.03567), the mixture over ratios from a Beta(c, c), with c = 1 or c = 100 by a
coin::

    Λ = mean over c of  B(c + a, c + b) / B(c, c) / (1/2)^(a+b),   p = min(1, 1/Λ)

It falls below .001, at any look, in at most 1 of 1,000 sound rollouts.

*Planning*: at a level of 5 % and a power of 80 %, looking at every moment needs about twice the
units of a test with a single look.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import betaincc, betaln, logsumexp, ndtri, xlog1py, xlogy

from newshelf.store.records import Floats

Number = TypeVar("Number", float, NDArray[np.float64])


def tuning_rho(tuned_at: float, alpha: float) -> float:
    """Return the ρ whose sequence is tightest at ``tuned_at`` (arXiv:2103.06476, eq. 161)."""
    return float(np.sqrt((-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / tuned_at))


def half_width(variance: Number, n: Number, *, tuned_at: float, alpha: float) -> Number:
    """Return half of the width of a two-sided 1 - α confidence sequence.

    ``variance`` is the squared standard error of the estimate, of any shape; the clock ``n`` has
    any unit that grows as 1 / variance, and so has N*, ``tuned_at``.
    """
    grown = n * tuning_rho(tuned_at, alpha) ** 2
    width: Number = np.sqrt(variance * 2 * (grown + 1) / grown * np.log(np.sqrt(grown + 1) / alpha))
    return width


def p_value(
    estimate: Number, variance: Number, n: Number, *, tuned_at: float, alpha: float
) -> Number:
    """Return the anytime-valid p of "the truth is 0": the least α' whose sequence excludes 0.

    ``1 / e`` with the mixture's e-value, ρ as for ``alpha``::

        e = exp( z²/2 · n·ρ² / (n·ρ² + 1) ) / √(n·ρ² + 1),   z² = estimate² / variance

    It is below ``alpha`` exactly when the sequence of :func:`half_width` excludes 0.
    """
    grown = n * tuning_rho(tuned_at, alpha) ** 2
    log_e = estimate**2 / variance / 2 * grown / (grown + 1) - np.log(grown + 1) / 2
    p: Number = np.minimum(np.exp(-log_e), 1.0)
    return p


def log_evidence_above(k: ArrayLike, n: ArrayLike, share: ArrayLike) -> Floats:
    """Return ln M against "the true share is at most ``share``"; above ln(1/α) it is refuted.

    ``k`` of ``n`` trials are successes, of any shape; the share s₀ is between 0 and 1, exclusive.
    """
    k, n, share = (np.asarray(each, dtype=np.float64) for each in (k, n, share))
    missed = n - k
    with np.errstate(divide="ignore"):
        # 0 where the data lie far below: no evidence.
        log_mass = np.log(betaincc(k + 1, missed + 1, share))
    found: Floats = (
        log_mass
        + betaln(k + 1, missed + 1)
        - np.log1p(-share)
        - xlogy(k, share)
        - xlog1py(missed, -share)
    )
    return found


def lower_bound(k: int, n: int, alpha: float) -> float:
    """Return a lower bound of the true share at every look, at the level ``alpha``."""
    if k == 0:
        return 0.0
    threshold = math.log(1 / alpha)

    def over(share: float) -> float:
        return float(log_evidence_above(k, n, share)) - threshold

    # Below the estimate the evidence grows without bound. With k = n it may start above the
    # threshold, but the bound is then below 1 too.
    top = min(k / n, 1 - 1e-12)
    if over(top) >= 0:
        return top
    bottom = top
    while over(bottom) < 0:
        bottom /= 2
    bound: float = brentq(over, bottom, top, xtol=1e-12, rtol=1e-9)
    return bound


def upper_bound(k: int, n: int, alpha: float) -> float:
    """Return an upper bound of the true share at every look, at the level ``alpha``."""
    return 1 - lower_bound(n - k, n, alpha)


def level_when_halved(alpha: float, halved: int) -> float:
    """Return the part of ``alpha`` for a sample that was halved ``halved`` times."""
    return alpha * (0.1 / (halved * (halved + 1)) if halved else 0.9)


def lower_quantile(values: Floats, quantile: float, alpha: float) -> float:
    """Return a lower bound of the true quantile at every look, at the level ``alpha``.

    It is -inf while there are too few ``values`` ``(n,)``, a uniform sample that grows by
    appending.
    """
    n, share, threshold = len(values), 1 - quantile, math.log(1 / alpha)
    # The quantile is exceeded with a probability of at most 1 - quantile. A value that is exceeded
    # so often that this is refuted lies below the quantile.
    usual = math.ceil(share * n)
    fewest = usual + bisect_left(
        range(usual, n + 1),
        True,
        key=lambda count: bool(log_evidence_above(count, n, share) >= threshold),
    )
    if fewest > n:
        return -math.inf
    return float(np.partition(values, n - fewest)[n - fewest])


def upper_quantile(values: Floats, quantile: float, alpha: float) -> float:
    """Return an upper bound of the true quantile at every look; inf with too few values."""
    return -lower_quantile(-values, 1 - quantile, alpha)


MISMATCH_P = 0.001
_CONCENTRATIONS = np.array([1.0, 100.0])
"""c: 100 detects the usual losses of some per cent (standard deviation of the ratio 3.5 points);
1 detects a variant without traffic after a dozen units."""


@dataclass(frozen=True)
class SampleRatio:
    """Units of both variants, and the test of equal shares."""

    control: int
    challenger: int
    sequential_p: float

    @property
    def mismatch(self) -> bool:
        """Return True when assignment or its record is broken."""
        return self.sequential_p < MISMATCH_P


def sample_ratio(control: int, challenger: int) -> SampleRatio:
    """Test whether both variants got the same share of the distinct units of a whole rollout."""
    p = math.exp(min(-float(mismatch_log_evidence(control, challenger)), 0.0))
    return SampleRatio(control, challenger, p)


def mismatch_log_evidence(control: ArrayLike, challenger: ArrayLike) -> NDArray[np.float64]:
    """Return ln Λ against equal shares, any shape; above -ln p it is a mismatch at level p."""
    a, b = (np.asarray(each, dtype=np.float64)[..., None] for each in (control, challenger))
    c = _CONCENTRATIONS
    each = betaln(c + a, c + b) - betaln(c, c) + (a + b) * math.log(2)
    found: NDArray[np.float64] = logsumexp(each, axis=-1) - math.log(len(c))
    return found


def needed_information(effect: float, *, alpha: float, power: float) -> float:
    """Return the information (1 / variance) at which a sequence tuned to it finds ``effect``.

    With c the half-width there, in standard errors::

        I = ( (c + z_power) / δ )²

    Only the last look counts. Earlier looks add power, so the plan is conservative.

    ``effect`` is δ, in the unit of the estimate: ln(1.1) for a lift of 10 %.
    """
    tightest = half_width(1.0, 1.0, tuned_at=1.0, alpha=alpha)
    return float((tightest + ndtri(power)) / effect) ** 2
