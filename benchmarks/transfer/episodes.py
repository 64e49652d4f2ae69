"""Fashion: episodes of five product types that were never learned from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.transfer.context import Context
from benchmarks.transfer.result import Goal, Row, TaskResult
from newshelf.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.evaluation.figures.lines import Line, draw_lines
from newshelf.transfer.loop import fit
from newshelf.transfer.meta.classify import EpisodeMaml, MamlLearner, classification_maml
from newshelf.transfer.meta.episodes import EpisodeSampler
from newshelf.transfer.meta.learner import FewShotLearner
from newshelf.transfer.meta.metric import AllTypes
from newshelf.transfer.meta.network import FewShotNet, ResidualAdapter
from newshelf.transfer.meta.probe import LinearProbe
from newshelf.transfer.meta.prototypes import Prototypes
from newshelf.transfer.meta.whitening import fit_whitening
from newshelf.transfer.run import Run

__all__ = ["run"]

_WAYS, _QUERIES = 5, 15
_SHOTS = (1, 2, 5, 10, 20)
_EPISODES = {1: 600, 5: 600}
_FEWER_EPISODES = 200
"""At the other shots, which are only drawn."""
_CHOOSING = 100
"""Episodes of the validation types by which something is chosen."""
_MIN_ROWS = _SHOTS[-1] + _QUERIES
_MAX_ROWS = 250
"""Of a type, so that watches (2,542) do not outweigh the rest."""
_TEST, _VALIDATION = 20, 12
_SHRINKAGE = (0.3, 0.6, 0.9)
_PENALTY = (1.0, 10.0, 100.0)
_MAML_WIDTH = 256

_WITH_TITLE = "picture + title"
_BASELINES = (
    "prototypes, frozen features",
    "prototypes by cosine, frozen features",
    f"prototypes by cosine, {_WITH_TITLE}",
)


@dataclass(frozen=True)
class _Method:
    """A learner and the features it reads."""

    learner: FewShotLearner
    features: Tensor


@dataclass(frozen=True)
class _Types:
    """Class of each row, -1 elsewhere, for the three parts of a seed."""

    train: Tensor
    validation: Tensor
    test: Tensor


def run(context: Context) -> TaskResult:
    """Accuracy of each method over shots, on types held out."""
    catalog = context.catalog("fashion")
    table = context.backbone(catalog).table
    labels, names = _labels(catalog, table.image_present)
    measured: dict[tuple[int, str], list[float]] = {}
    intervals: dict[tuple[int, str], list[float]] = {}
    chosen: list[str] = []
    for seed in context.seeds:
        types = _split(labels, len(names), seed)
        methods, said = _methods(table.image, table.text, types, seed, context)
        chosen.append(said)
        for name, method in methods.items():
            for shots in _SHOTS:
                hits = _accuracies(method, types.test, shots, _EPISODES.get(shots, _FEWER_EPISODES))
                measured.setdefault((shots, name), []).append(float(hits.mean()))
                half = 1.96 * float(hits.std()) / len(hits) ** 0.5
                intervals.setdefault((shots, name), []).append(half)
            five = measured[5, name][-1]
            context.console.print(f"  seed {seed}: {name}, 5 shots: {five:.1%}")
    figure = _draw(measured, context.figures / "episodes-shots.png")
    widest = max(intervals[5, name][-1] for name in methods)
    rows = [
        Row(_measure(shots, name), name, values, baseline=name in _BASELINES)
        for (shots, name), values in sorted(
            measured.items(), key=lambda entry: (_WITH_TITLE in entry[0][1], entry[0][0])
        )
    ]
    return TaskResult(
        task="episodes",
        title="Five product types never seen, from a few pictures of each",
        protocol=_protocol(len(names)),
        rows=rows,
        goals=(Goal("accuracy, 5 shots", 0.03, "plus"),),
        notes=_notes(chosen, widest),
        figures={"Accuracy over shots, five types never learned from": figure},
    )


def _measure(shots: int, name: str) -> str:
    measure = f"accuracy, {shots} shot{'s' * (shots > 1)}"
    return f"{measure}, {_WITH_TITLE}" if _WITH_TITLE in name else measure


def _protocol(classes: int) -> str:
    return (
        f"fashion's {classes} types (last level) with {_MIN_ROWS} pictures or more; each seed "
        f"keeps {_TEST} types for the test and {_VALIDATION} for every choice, and meta-trains on "
        f"the rest (at most {_MAX_ROWS} products each). Episodes: {_WAYS} ways, {_QUERIES} "
        f"queries a type; {_EPISODES[5]} test episodes at 1 and 5 shots, {_FEWER_EPISODES} at the "
        "others, the same for every method. Pictures only, for titles name the type; rows with "
        "the title are measures of their own. Only the support of an episode is looked at, its "
        "queries are classified one by one."
    )


def _notes(chosen: Sequence[str], widest: float) -> list[str]:
    return [
        f"95 % interval over the test episodes of one seed at 5 shots: ± {widest:.1%} at most; "
        "between seeds the types differ, which moves all methods together.",
        "Chosen on the validation types, by seed: " + "; ".join(chosen) + ".",
    ]


def _labels(catalog: Catalog, present: Tensor) -> tuple[Tensor, list[str]]:
    """Class of each row, by the last level of its type; -1 for what is too rare."""
    levels = [category_levels(product.product_type) for product in catalog.products()]
    leaves = [level[-1] if level else "" for level in levels]
    seen = Counter(leaf for leaf, there in zip(leaves, present.tolist(), strict=True) if there)
    names = sorted(leaf for leaf, count in seen.items() if leaf and count >= _MIN_ROWS)
    number = {name: at for at, name in enumerate(names)}
    labels = torch.tensor([number.get(leaf, -1) for leaf in leaves])
    return labels.masked_fill(~present, -1), names


def _split(labels: Tensor, classes: int, seed: int) -> _Types:
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).tolist()

    def part(numbers: Sequence[int]) -> Tensor:
        found = torch.full_like(labels, -1)
        for at, number in enumerate(numbers):
            found[torch.nonzero(labels == number).flatten()[:_MAX_ROWS]] = at
        return found

    ends = _TEST, _TEST + _VALIDATION
    return _Types(part(order[ends[1] :]), part(order[ends[0] : ends[1]]), part(order[: ends[0]]))


def _methods(
    image: Tensor, text: Tensor, types: _Types, seed: int, context: Context
) -> tuple[dict[str, _Method], str]:
    """Every method by name, trained and chosen without the test types; what was chosen."""
    run = Run(seed, context.console, quiet=True)
    # The power transform of PT-MAP (Hu et al., 2021): pooled activations are skewed.
    root = image.clamp(min=0).sqrt()
    both = torch.cat([F.normalize(root, dim=1), F.normalize(text, dim=1)], dim=1)

    def best(options: Sequence[_Method]) -> _Method:
        return max(options, key=lambda m: float(_chosen_by(m, types.validation)))

    def probe(features: Tensor) -> _Method:
        return best([_Method(LinearProbe(c=c), features) for c in _PENALTY])

    def whitened(features: Tensor) -> tuple[Tensor, float]:
        made = {share: _whiten(features, types.train, share) for share in _SHRINKAGE}
        picked = best([_Method(Prototypes(metric="cosine"), rows) for rows in made.values()])
        return picked.features, next(s for s, rows in made.items() if rows is picked.features)

    white, shrinkage = whitened(root)
    white_both, shrinkage_both = whitened(both)
    narrow = _whiten(root, types.train, shrinkage, _MAML_WIDTH)
    torch.manual_seed(seed)
    adapter = _all_types(F.normalize(root, dim=1), types, run)
    unit = F.normalize(root, dim=1)
    with torch.no_grad():
        embedded = adapter(unit)
    methods = {
        _BASELINES[0]: _Method(Prototypes(), image),
        _BASELINES[1]: _Method(Prototypes(metric="cosine"), image),
        "linear probe, frozen features": probe(image),
        "MAML, first order": _maml(narrow, types, run, "first"),
        "MAML, second order": _maml(narrow, types, run, "second"),
        "ProtoMAML, first order": _maml(narrow, types, run, "prototypes"),
        "prototypes, meta-trained adapter": _Method(Prototypes(metric="cosine"), embedded),
        "linear probe, meta-trained adapter": probe(embedded),
        "prototypes, whitened": _Method(Prototypes(metric="cosine"), white),
        "linear probe, whitened": probe(white),
        _BASELINES[2]: _Method(Prototypes(metric="cosine"), both),
        f"linear probe, whitened, {_WITH_TITLE}": probe(white_both),
    }
    said = f"shrinkage {shrinkage:g} (picture + title {shrinkage_both:g})"
    for name, method in methods.items():
        if isinstance(method.learner, LinearProbe):
            said += f", C {method.learner.c:g} ({name})"
    return methods, said


def _whiten(features: Tensor, train: Tensor, shrinkage: float, width: int | None = None) -> Tensor:
    rows = train >= 0
    fitted = fit_whitening(features[rows], train[rows], shrinkage=shrinkage, width=width)
    return fitted(features)


def _all_types(unit: Tensor, types: _Types, run: Run) -> ResidualAdapter:
    """An adapter trained to tell the meta-training types apart."""
    adapter = ResidualAdapter(unit.shape[1])
    objective = AllTypes(adapter, unit, types.train)
    rows = torch.nonzero(types.train >= 0).flatten()

    def batches(epoch: int, generator: torch.Generator) -> Sequence[Tensor]:  # noqa: ARG001
        order = torch.randperm(len(rows), generator=generator)
        # The last batch may be a single row.
        parts: Sequence[Tensor] = rows[order].split(128)[:-1]
        return parts

    def validate() -> float:
        return _chosen_by(_Method(Prototypes(adapter, "cosine"), unit), types.validation)

    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3, weight_decay=0.01)
    fit("types", objective, batches, optimizer, run, epochs=6, validate=validate, patience=2)
    return adapter


def _maml(features: Tensor, types: _Types, run: Run, kind: str) -> _Method:
    """MAML on whitened features; the epoch is chosen on the validation types."""
    net = FewShotNet(ResidualAdapter(features.shape[1], hidden=64), _WAYS)
    prototypes = kind == "prototypes"
    maml = classification_maml(
        net,
        prototypes=prototypes,
        steps=3,
        rate=0.01 if prototypes else 0.2,
        first_order=kind != "second",
        learn_rates=True,
    )
    learner = MamlLearner(maml)
    sampler = EpisodeSampler(types.train, ways=_WAYS, shots=5, queries=10)
    groups = [
        {"params": [*net.parameters()], "lr": 1e-3},
        {"params": [maml.log_rates], "lr": 0.02},
    ]
    fit(
        f"maml-{kind}",
        EpisodeMaml(maml, features),
        sampler.batches(tasks=4, steps=40),
        torch.optim.AdamW(groups, weight_decay=0.01),
        run,
        epochs=6,
        validate=lambda: _chosen_by(_Method(learner, features), types.validation),
        patience=2,
    )
    return _Method(learner, features)


def _chosen_by(method: _Method, validation: Tensor) -> float:
    """Accuracy on 5-shot episodes of the validation types."""
    return float(_accuracies(method, validation, 5, _CHOOSING).mean())


def _accuracies(method: _Method, labels: Tensor, shots: int, episodes: int) -> np.ndarray:
    """``(episodes,)``; the same episodes for every method."""
    sampler = EpisodeSampler(labels, ways=_WAYS, shots=shots, queries=_QUERIES)
    generator = torch.Generator().manual_seed(shots)
    found = np.empty(episodes)
    for at in range(episodes):
        drawn = sampler.draw(generator)
        classifier = method.learner.adapt(method.features[drawn.support], drawn.support_labels)
        predicted = classifier.scores(method.features[drawn.queries]).argmax(dim=1)
        found[at] = float((predicted == drawn.query_labels).float().mean())
    return found


def _draw(measured: dict[tuple[int, str], list[float]], path: Path) -> Path:
    names = list(dict.fromkeys(name for _, name in measured))
    lines = {
        name: Line(
            _SHOTS,
            [float(np.mean(measured[shots, name])) for shots in _SHOTS],
        )
        for name in names
    }
    pictures = {name: line for name, line in lines.items() if _WITH_TITLE not in name}
    titles = {name: line for name, line in lines.items() if name not in pictures}
    draw_lines(
        {"From the picture": pictures, "From picture and title": titles},
        path,
        xlabel="shots",
        ylabel="accuracy",
        percent=True,
        log_x=True,
    )
    return path
