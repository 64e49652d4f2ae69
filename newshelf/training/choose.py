"""Choice between methods by validation inside the training data, within a time budget.

A method replaces the simple one only if it is better on random folds and on folds of look-alike
products, each time by more than the standard error of the difference. Random folds alone favour
what recognises near-duplicates, which new products are not.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from newshelf.errors import TrainingError
from newshelf.training.distributed import agreed
from newshelf.training.labels import UNLABELLED
from newshelf.training.run import LoopCheckpoint, Run

AUTO = "auto"


@dataclass(frozen=True)
class Candidate:
    """A method: its name as in ``[training]``, and what distinguishes it."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Result of a candidate by fold, higher is better; all candidates have the same folds."""

    random: tuple[float, ...]
    """On folds drawn at random."""
    grouped: tuple[float, ...]
    """On folds that keep look-alike products together."""


def _gain(values: Sequence[float], simple: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard error of the differences by fold.

    The folds share training data, so the variance of the mean is that of a fold times
    ``1/k + 1/(k - 1)`` (Nadeau and Bengio, 2003).
    """
    differences = np.array(values) - np.array(simple)
    folds = len(differences)
    error = differences.std(ddof=1) * np.sqrt(1 / folds + 1 / (folds - 1))
    return float(differences.mean()), float(error)


@dataclass(frozen=True)
class Choice:
    """The method that a job uses, and why."""

    job: str
    name: str
    reason: str
    table: tuple[dict[str, Any], ...] = ()
    """A row per candidate: name, settings, seconds, and its results or why it has none."""
    seconds: float = 0.0


def choose(
    job: str,
    candidates: Sequence[Candidate],
    measure: Callable[[Candidate], Score],
    simple: str,
    budget_s: float,
    run: Run,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Choice:
    """Return the method for ``job``; prints a table of all candidates.

    ``measure`` validates one candidate; a ``TrainingError`` of it leaves that candidate out. No
    measurement begins after ``budget_s`` seconds. Several processes measure together, and the
    first one decides. A resumed run takes its earlier choice, since a time budget may end
    elsewhere.

    ``simple`` is the candidate that is measured first, and taken unless another one is better.
    """
    state = f"choice of {job}"
    kept = run.load(state)
    if kept is not None:
        choice = Choice(**kept.history)
        run.tell(f"{job}: {choice.name}, as chosen before")
        return choice
    started = clock()
    scores: dict[str, Score] = {}
    rows: list[dict[str, Any]] = []
    for candidate in sorted(candidates, key=lambda one: one.name != simple):
        row: dict[str, Any] = {"name": candidate.name, "settings": dict(candidate.settings)}
        begun = clock()
        if agreed(begun - started >= budget_s):
            row["problem"] = f"not measured: the {budget_s:.0f} s of [training] budget_s are over"
        elif rows and simple not in scores:
            row["problem"] = f"not measured: {simple} has no result to compare with"
        else:
            try:
                with torch.random.fork_rng():
                    score: Score = agreed(measure(candidate))
            except TrainingError as error:
                row["problem"] = error.message
            else:
                scores[candidate.name] = score
                row |= asdict(score)
        rows.append(row | {"seconds": round(clock() - begun, 1)})
    name, reason = _best(scores, simple)
    choice = Choice(job, name, reason, tuple(rows), round(clock() - started, 1))
    _tell(choice, run)
    run.save(state, LoopCheckpoint(history=asdict(choice)))
    return choice


def _best(scores: Mapping[str, Score], simple: str) -> tuple[str, str]:
    """Return the name of the best method, and the reason.

    Of several that are better than the simple one, the one with the largest gain on the kind of
    folds where it gains least.
    """
    if simple not in scores:
        return simple, "it could not be validated"
    plain = scores[simple]
    gains = {
        name: (_gain(score.random, plain.random), _gain(score.grouped, plain.grouped))
        for name, score in scores.items()
    }
    better = [name for name in gains if all(gain > error for gain, error in gains[name])]
    if not better:
        return simple, "no other method is better by more than its standard error on both"
    name = max(better, key=lambda one: min(gain for gain, _ in gains[one]))
    shown = [f"{100 * gain:.1f} ± {100 * error:.1f}" for gain, error in gains[name]]
    return name, f"better than {simple} by {shown[0]} points on random folds, {shown[1]} on groups"


def _tell(choice: Choice, run: Run) -> None:
    width = max(len(str(row["name"])) for row in choice.table)
    run.tell(f"{choice.job}, by validation on random folds and on folds of look-alikes:")
    for row in choice.table:
        found = row.get("problem") or "   ".join(
            f"{100 * float(np.mean(row[kind])):5.1f} %" for kind in ("random", "grouped")
        )
        run.tell(f"  {row['name']:<{width}}  {found}   ({row['seconds']} s)")
    run.tell(f"  → {choice.name}: {choice.reason}")


_FOLDS = 5
_MIN_FOLDS = 2
_MOST = 600
"""Number of labelled products that validation uses; more would cost time and decide the same."""
_PER_GROUP, _MAX_GROUPS = 5, 100


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to learn from and rows to validate on, int64; both have all the latter's classes."""

    learn: Tensor
    held: Tensor


@dataclass(frozen=True)
class Folds:
    """Folds of the same rows, drawn in two ways."""

    random: tuple[Fold, ...]
    grouped: tuple[Fold, ...]


def by_recall(
    target: Tensor, features: Tensor, seed: int, predict: Callable[[str, Fold], Tensor]
) -> Callable[[Candidate], Score]:
    """Return the measurement of a candidate by its mean recall on the folds of the labelled rows.

    ``predict`` returns the classes of a fold's held rows by the method of that name, learned from
    the others; ``target`` and ``features`` are those of :func:`validation_folds`.
    """

    @cache
    def folds() -> Folds:
        return validation_folds(target, features, seed)

    def measure(candidate: Candidate) -> Score:
        def recall(fold: Fold) -> float:
            return mean_recall(predict(candidate.name, fold), target[fold.held])

        return Score(tuple(map(recall, folds().random)), tuple(map(recall, folds().grouped)))

    return measure


def validation_folds(target: Tensor, features: Tensor, seed: int) -> Folds:
    """Return folds of the labelled rows.

    ``target`` is ``(N,)`` int64, -1 for unlabelled. Rows whose ``features`` ``(N, F)`` fall into
    one cluster of k-means look alike, and are in one grouped fold.

    Raises:
        TrainingError: there are too few labelled rows.
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(torch.nonzero(target != UNLABELLED).flatten().numpy())[:_MOST]
    rows = np.sort(rows)
    truth = target[rows].numpy()
    _, counts = np.unique(truth, return_counts=True)
    if len(counts) < _MIN_FOLDS or len(rows) < 2 * _FOLDS or counts.max() < _FOLDS:
        raise TrainingError(
            f"{len(rows)} labelled products of {len(counts)} classes are too few to validate on: "
            f"{_FOLDS} folds need two classes, and {_FOLDS} products of one of them"
        )
    plain = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    apart = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    clusters = max(2 * _FOLDS, min(len(rows) // _PER_GROUP, _MAX_GROUPS))
    with warnings.catch_warnings():
        # There may be fewer distinct rows than clusters, and classes with fewer rows than folds.
        warnings.simplefilter("ignore", UserWarning)
        means = KMeans(clusters, n_init=1, random_state=seed)
        groups = means.fit_predict(features[rows].numpy())
        if (distinct := len(np.unique(groups))) < _FOLDS:
            raise TrainingError(
                f"the labelled products look alike in {distinct} ways, and {_FOLDS} are needed to "
                "keep look-alikes apart in validation"
            )
        return Folds(
            _usable(rows, truth, list(plain.split(rows, truth))),
            _usable(rows, truth, list(apart.split(rows, truth, groups))),
        )


def _usable(
    rows: np.ndarray, truth: np.ndarray, splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[Fold, ...]:
    """Return the folds, without classes that cannot be learned there."""
    folds = []
    for learn, held in splits:
        known = held[np.isin(truth[held], truth[learn])]
        if len(known) and len(np.unique(truth[learn])) > 1:
            folds.append(Fold(torch.from_numpy(rows[learn]), torch.from_numpy(rows[known])))
    if len(folds) < _MIN_FOLDS:
        raise TrainingError(
            "the labelled products of a class all look alike: none can be kept apart to validate on"
        )
    return tuple(folds)


def mean_recall(predicted: Tensor, truth: Tensor) -> float:
    """Return the accuracy averaged over the classes in ``truth``; both are ``(n,)`` int64."""
    correct = (predicted == truth).float()
    return float(torch.stack([correct[truth == value].mean() for value in truth.unique()]).mean())
