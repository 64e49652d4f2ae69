r"""Training of the served ranking: the Siamese scorer and the weighted signals.

Phase 1 holds a part of the data out, trains a scorer and computes the signals without it, and
fits the signals' weights on it. Phase 2 trains the scorer and computes the signals from all
data, with the weights of phase 1: weights fitted on data that a signal has seen would be too
large.

The weights are those of a conditional logit over the items::

    P(c | h) = exp(w · x(h, c)) / Σ_{a ∉ h} exp(w · x(h, a))
    max_w  mean over cases  1/|relevant| Σ_{c ∈ relevant} log P(c | h)  -  ||w||² / cases

McFadden, "Conditional logit analysis of qualitative choice behavior", 1974. ``x`` are the
signals, standardised while fitting; the last term is a normal prior on their weights, so that
few cases move them little. In a large catalogue the sum runs over the relevant items and a
uniform sample of the others, whose terms are multiplied by the inverse of the sampled share: an
estimate of the whole sum by importance sampling (Bengio & Senécal, AISTATS 2003).

The scale is then set so that a score is the log-odds of an interaction (Platt, 1999).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from newshelf.catalog.interactions import Sequences, latest
from newshelf.config import BlendSettings, ScorerSettings
from newshelf.errors import TrainingError
from newshelf.evaluation.types import BoolArray, Case, FloatArray, IntArray
from newshelf.nn.blend import LINKS, Blend, content_neighbours, content_signal
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import BlendSpec
from newshelf.training.run import Run
from newshelf.training.siamese import score_all, train_scorer
from newshelf.training.signals import (
    bound_newcomers,
    direct_links,
    hold_out,
    incidence_matrix,
    popularity_features,
)

MIN_CASES = 30
"""Fewer cases say too little about a dozen weights."""
_MAX_ITEMS = 4096
"""Items in the likelihood's sum; of a larger catalogue, a uniform sample."""
_PRIOR = 1.0
_STEPS = 60
_LEAST_SLOPE = 1e-3
"""Log-odds per standard deviation of the scores, also where these are worse than chance."""
_CONSTANT = 1e-5
"""Standard deviation relative to the mean, below which a signal is constant."""


def fit_weights(
    signals: FloatArray,
    relevant: BoolArray,
    ranked: BoolArray,
    correction: FloatArray,
) -> FloatArray:
    """Return the signals' weights.

    Args:
        signals: ``(cases, C, S)``, finite.
        relevant: ``(cases, C)``: the items of the interactions, at least one per case.
        ranked: ``(cases, C)``: the items that the case could have.
        correction: ``(cases, C)`` or broadcastable: added to the logits, the logarithm of
            the number of items that one sampled item represents.

    Returns:
        ``(S,)`` float32, for the signals before standardisation.

    Raises:
        TrainingError: no case, or a signal that is not finite.
    """
    if not len(signals):
        raise TrainingError("no case to fit the signals' weights on")
    if not np.isfinite(signals).all():
        raise TrainingError("a signal is not finite")
    x = torch.from_numpy(signals)
    mean, scale = x.mean(dim=(0, 1)), x.std(dim=(0, 1))
    # A constant signal is divided by infinity, so its weight is 0.
    scale = scale.masked_fill(scale <= _CONSTANT * mean.abs(), math.inf)
    # An addend of all items changes no probability, but costs float32 precision.
    x = (x - mean).div_(scale)
    share = torch.from_numpy(relevant / relevant.sum(axis=1, keepdims=True)).float()
    masked = ~torch.from_numpy(ranked)
    offset = torch.from_numpy(correction)
    weights = torch.zeros(x.shape[2], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = (x @ weights + offset).masked_fill(masked, -1e9)
        # The line search compares losses that differ by less than float32 can tell.
        loss = -(share * logits.log_softmax(dim=1, dtype=torch.float64)).sum(dim=1).mean()
        loss = loss + _PRIOR / len(x) * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (weights.detach() / scale).numpy()


def calibrate(scores: FloatArray, relevant: BoolArray, counts: FloatArray) -> tuple[float, float]:
    """Return slope > 0 and intercept that turn scores into log-odds, by logistic regression.

    Each argument is ``(n,)``; ``counts`` are the numbers of items that an entry represents.
    """
    x, y, counted = (part.astype(np.float64) for part in (scores, relevant, counts))
    mean, deviation = float(x.mean()), max(float(x.std()), 1e-9)
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=_STEPS)
    model.fit((x[:, None] - mean) / deviation, y > 0, sample_weight=counted / counted.mean())
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < _LEAST_SLOPE:
        slope, offset = _LEAST_SLOPE, math.log(counted @ y / (counted @ (1 - y)))
    return slope / deviation, offset - slope / deviation * mean


@dataclass(frozen=True, eq=False)
class Signals:
    """Signals from behaviour and content, before weighting."""

    links: sparse.csr_array
    """``(N, N)`` float32: co-occurrence."""
    neighbours: sparse.csr_array
    """``(N, N)`` float32: similarity; each row sums to 1."""
    unpersonal: dict[str, FloatArray]
    """``(N,)`` float32 each."""
    embeddings: FloatArray
    """``(N, D)`` of unit length."""
    temperature: float

    def weighed(self, weights: dict[str, float], intercept: float = 0.0) -> Blend:
        """Return the blend with these weights by signal."""
        prior = np.full(len(self.embeddings), intercept, dtype=np.float32)
        for name, feature in self.unpersonal.items():
            prior += np.float32(weights[name]) * feature
        kept = {name: weights[name] for name in ("siamese", "content", *LINKS)}
        spec = BlendSpec(weights=kept, temperature=self.temperature)
        return Blend(spec, self.links, self.neighbours, prior)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all signals, in the order of :meth:`table`'s last axis."""
        return ("siamese", "content", *LINKS, *self.unpersonal)

    def table(
        self, histories: Sequence[IntArray], siamese: FloatArray, columns: IntArray
    ) -> FloatArray:
        """Return every signal for some items, ``(B, C, S)`` float32.

        ``histories`` are B arrays of item rows, none empty; ``siamese`` is ``(B, N)``, ``columns``
        ``(C,)`` item rows.
        """
        links = BlendLookup(self.weighed(dict.fromkeys(self.names, 0.0)))
        shared = [feature[columns] for feature in self.unpersonal.values()]
        rows = []
        for history, scores in zip(histories, siamese, strict=True):
            cosines = self.embeddings[history] @ self.embeddings[columns].T
            content = content_signal(cosines, self.temperature)
            linked = links.signals(links.sums(np.unique(history)), columns)
            rows.append(np.stack([scores[columns], content, *linked, *shared], axis=1))
        return np.stack(rows)


def make_signals(embeddings: Tensor, data: Sequences, settings: BlendSettings) -> Signals:
    """Compute the signals from training data; ``embeddings`` are ``(N, D)`` of unit length."""
    neighbours = content_neighbours(embeddings.numpy())
    incidence = incidence_matrix(data, len(embeddings), settings.half_life_days)
    return Signals(
        links=direct_links(
            incidence,
            ridge=settings.ridge,
            max_items=settings.linked_items,
            per_item=settings.links_per_item,
        ),
        neighbours=neighbours,
        unpersonal=popularity_features(data, neighbours),
        embeddings=embeddings.numpy(),
        temperature=BlendSpec(weights={}).temperature,
    )


def fit_blend(
    signals: Signals,
    cases: Sequence[Case],
    siamese: FloatArray,
    known: IntArray,
    generator: np.random.Generator,
) -> tuple[dict[str, float], float]:
    """Return weights by signal, and the intercept, on the scale of log-odds.

    Items without any interaction are no alternatives: otherwise the weights would learn that new
    items are never taken. The items that lost their interactions represent the new ones.

    Signals and ``siamese`` ``(cases, N)`` are made without the cases, of which there are at least
    :data:`MIN_CASES`. ``known`` are the rows of the items with an interaction, cases included.

    Raises:
        TrainingError: see ``fit_weights``.
    """
    columns, counts = _columns(cases, known, generator)
    table = signals.table([case.history for case in cases], siamese, columns)
    relevant = np.stack([np.isin(columns, case.relevant) for case in cases])
    ranked = np.stack([~np.isin(columns, case.history) for case in cases])
    correction = np.where(relevant, 0, np.log(counts)).astype(np.float32)
    weights = fit_weights(table, relevant, ranked, correction)
    scores = table @ weights
    counted = np.where(relevant, 1, counts)
    slope, intercept = calibrate(scores[ranked], relevant[ranked], counted[ranked])
    fitted = zip(signals.names, (slope * weights).tolist(), strict=True)
    return dict(fitted), intercept


def _columns(
    cases: Sequence[Case], known: IntArray, generator: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Return the items of the sum, and the number of items that each represents."""
    if len(known) <= _MAX_ITEMS:
        return known, np.ones(len(known), dtype=np.float32)
    relevant = np.unique(np.concatenate([case.relevant for case in cases]))
    others = np.setdiff1d(known, relevant)
    sampled = generator.choice(others, min(len(others), _MAX_ITEMS), replace=False)
    columns = np.concatenate([relevant, sampled])
    counts = np.ones(len(columns), dtype=np.float32)
    counts[len(relevant) :] = len(others) / max(1, len(sampled))
    return columns, counts


_SINGLE_VISIT_SHARE = 0.5
_PHASE_1_DIVISOR = 2
"""Phase 1's scorer takes this fraction of epochs and steps: it only serves to fit weights."""


@dataclass(frozen=True)
class Ranking:
    """The trained scorer, its blend (None with too few cases), and its losses."""

    scorer: SiameseScorer
    blend: Blend | None
    losses: list[float]


def train_ranking(
    embeddings: Tensor,
    data: Sequences,
    settings: ScorerSettings,
    run: Run,
    *,
    start: SiameseScorer | None = None,
) -> Ranking:
    """Train scorer and blend in both phases; ``start`` is an earlier version's scorer.

    ``embeddings`` are ``(N, 512)`` float32 of unit length. If most shoppers came only once, there
    is no order to learn, and their sequences are read as baskets, without weights.

    Raises:
        TrainingError: no sequence has two different items, or a loss is not finite.
    """
    if data.timestamps is not None and _mostly_single_visits(data.timestamps):
        # A basket has an item once, however often a shopper viewed it.
        data = Sequences([latest(sequence) for sequence in data.sequences])
    fitted = None
    if settings.blend.enabled and data.sequences:
        fitted = _fit_weights(embeddings, data, settings, run)
    data = bound_newcomers(data, settings.newcomer_days)
    scorer, losses = train_scorer(embeddings, data, settings, run, start=start)
    blend = None
    if fitted is not None:
        blend = make_signals(embeddings, data, settings.blend).weighed(*fitted)
    return Ranking(scorer, blend, losses)


def _fit_weights(
    embeddings: Tensor, data: Sequences, settings: ScorerSettings, run: Run
) -> tuple[dict[str, float], float] | None:
    """Return weights and intercept of phase 1; None with too few cases."""
    generator = np.random.default_rng(run.seed)
    train, cases = hold_out(data, len(embeddings), settings.blend, generator)
    if len(cases) < MIN_CASES or not any(len(np.unique(s)) > 1 for s in train.sequences):
        run.console.print(
            f"[yellow]{len(cases)} cases are too few to weigh signals on "
            f"(at least {MIN_CASES}): the scorer ranks alone[/]"
        )
        return None
    train = bound_newcomers(train, settings.newcomer_days)
    whole = {"epochs": settings.epochs, "max_steps": settings.max_steps}
    shorter = settings.model_copy(
        update={name: max(1, value // _PHASE_1_DIVISOR) for name, value in whole.items()}
    )
    scorer, _ = train_scorer(
        embeddings,
        train,
        shorter,
        replace(run, labels={"scorer-held": "training a scorer to weigh the signals with"}),
        name="scorer-held",
    )
    siamese = score_all(scorer, embeddings, [case.history for case in cases])
    signals = make_signals(embeddings, train, settings.blend)
    return fit_blend(signals, cases, siamese, np.unique(data.items), generator)


def _mostly_single_visits(timestamps: Sequence[IntArray]) -> bool:
    once = sum(len(np.unique(times)) == 1 for times in timestamps)
    return once > _SINGLE_VISIT_SHARE * len(timestamps)


@dataclass(frozen=True)
class BlendRanker:
    """Scores of the whole catalogue, for evaluation."""

    ranking: Ranking
    embeddings: Tensor
    name: str = "newshelf"

    @cached_property
    def _links(self) -> BlendLookup | None:
        return None if self.ranking.blend is None else BlendLookup(self.ranking.blend)

    def scores(self, histories: Sequence[IntArray]) -> FloatArray:
        """``(len(histories), N)`` float32, higher is better."""
        siamese = score_all(self.ranking.scorer, self.embeddings, histories)
        blend, links = self.ranking.blend, self._links
        if blend is None or links is None:
            return siamese
        weights = blend.spec.weights
        vectors = self.embeddings.numpy()
        total = np.stack([links.everywhere(links.sums(np.unique(one))) for one in histories])
        total += weights["siamese"] * siamese
        for row, history in enumerate(histories):
            cosines = vectors[history] @ vectors.T
            total[row] += weights["content"] * content_signal(cosines, blend.spec.temperature)
        return total.astype(np.float32)
