"""The methods of the episodes' benchmark, each trained and chosen without the test types."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.methods.meta.episodes import AllTypes, EpisodeSampler, FewShotNet, ResidualAdapter
from benchmarks.methods.meta.learners import (
    Ensemble,
    FewShotLearner,
    LinearProbe,
    Member,
    Prototypes,
    RefinedPrototypes,
)
from benchmarks.methods.meta.maml import EpisodeMaml, MamlLearner, classification_maml
from benchmarks.methods.meta.whitening import fit_whitening
from newshelf.transfer.loop import fit
from newshelf.transfer.run import Run

__all__ = [
    "BASELINES",
    "CHOSEN",
    "PLAIN_BASELINES",
    "QUERIES",
    "TOGETHER",
    "WAYS",
    "WITH_TITLE",
    "Method",
    "Types",
    "accuracies",
    "all_methods",
]

WAYS, QUERIES = 5, 15
_CHOOSING = 100
"""Episodes of the validation types by which something is chosen."""
_SHRINKAGE = (0.3, 0.6, 0.9)
_PENALTY = (1.0, 10.0, 100.0)
_SHARPNESS = (5.0, 10.0, 20.0)
_MAML_WIDTH = 256

WITH_TITLE = "picture + title"
TOGETHER = "queries together"
CHOSEN = "best on the validation types"
_PROTOTYPES, _PROBE = "prototypes by cosine, frozen features", "linear probe, frozen features"
PLAIN_BASELINES = ("prototypes, frozen features", _PROTOTYPES, _PROBE)
BASELINES = (
    *PLAIN_BASELINES,
    f"prototypes by cosine, {WITH_TITLE}",
    f"linear probe, {WITH_TITLE}",
    f"{_PROTOTYPES}, {TOGETHER}",
    f"{_PROBE}, {TOGETHER}",
)


@dataclass(frozen=True)
class Method:
    """A learner and the features it reads."""

    learner: FewShotLearner
    features: Tensor
    choosing: Tensor | None = None
    """The features for every choice, where ``features`` have learned from the validation types."""


@dataclass(frozen=True)
class Types:
    """Class of each row, -1 elsewhere, for the three parts of a seed."""

    train: Tensor
    validation: Tensor
    test: Tensor


def all_methods(
    image: Tensor, inner: Tensor, text: Tensor, types: Types, run: Run
) -> tuple[dict[str, Method], str]:
    """Every method by name, and what was chosen on the validation types.

    Args:
        image: ``(R, F)`` float32, frozen features of the pictures.
        inner: ``(R, I)`` float32, of inner stages of the same tower.
        text: ``(R, G)`` float32, frozen features of the titles.
        types: the parts of a seed.
        run: of that seed.
    """
    # The power transform of PT-MAP (Hu et al., 2021): pooled activations are skewed.
    root = image.clamp(min=0).sqrt()
    both = torch.cat([F.normalize(root, dim=1), F.normalize(text, dim=1)], dim=1)

    def best(options: Sequence[Method]) -> Method:
        return max(options, key=lambda m: float(_chosen_by(m, types.validation)))

    def probe(features: Tensor, choosing: Tensor | None = None) -> Method:
        return best([Method(LinearProbe(c=c), features, choosing) for c in _PENALTY])

    def refined(features: Tensor, choosing: Tensor | None = None) -> Method:
        options = [RefinedPrototypes(sharpness=s) for s in _SHARPNESS]
        return best([Method(learner, features, choosing) for learner in options])

    def whitened(features: Tensor) -> tuple[tuple[Tensor, Tensor], float]:
        made = {share: _whiten(features, types.train, share) for share in _SHRINKAGE}
        picked = best([Method(Prototypes(metric="cosine"), rows) for rows in made.values()])
        share = next(s for s, rows in made.items() if rows is picked.features)
        # Once everything is chosen, the validation types are more types to learn from.
        return (_whiten(features, _joined(types), share), picked.features), share

    white, shrinkage = whitened(root)
    white_inner, shrinkage_inner = whitened(inner)
    white_both, shrinkage_both = whitened(both)
    narrow = _whiten(root, types.train, shrinkage, _MAML_WIDTH)
    torch.manual_seed(run.seed)
    adapter = _all_types(F.normalize(root, dim=1), types, run)
    unit = F.normalize(root, dim=1)
    with torch.no_grad():
        embedded = adapter(unit)
    frozen_probe = probe(image)
    pooled_probe, inner_probe = probe(*white), probe(*white_inner)
    maml = _maml(narrow, types, run, "second")
    methods = {
        PLAIN_BASELINES[0]: Method(Prototypes(), image),
        _PROTOTYPES: Method(Prototypes(metric="cosine"), image),
        _PROBE: frozen_probe,
        "MAML, first order": _maml(narrow, types, run, "first"),
        "MAML, second order": maml,
        "ProtoMAML, first order": _maml(narrow, types, run, "prototypes"),
        "prototypes, meta-trained adapter": Method(Prototypes(metric="cosine"), embedded),
        "linear probe, meta-trained adapter": probe(embedded),
        "prototypes, whitened": Method(Prototypes(metric="cosine"), *white),
        "linear probe, whitened": pooled_probe,
        "linear probe, inner stages, whitened": inner_probe,
        "mean of both whitened probes": _mean_of(pooled_probe, inner_probe),
        "mean of both whitened probes and MAML": _mean_of(pooled_probe, inner_probe, maml),
        f"{_PROTOTYPES}, {TOGETHER}": Method(Prototypes(metric="cosine"), image),
        f"{_PROBE}, {TOGETHER}": frozen_probe,
        f"refined prototypes, frozen features, {TOGETHER}": refined(image),
        f"refined prototypes, whitened, {TOGETHER}": refined(*white),
        f"prototypes by cosine, {WITH_TITLE}": Method(Prototypes(metric="cosine"), both),
        f"linear probe, {WITH_TITLE}": probe(both),
        f"linear probe, whitened, {WITH_TITLE}": probe(*white_both),
    }
    said = (
        f"shrinkage {shrinkage:g} (inner stages {shrinkage_inner:g}, picture + title "
        f"{shrinkage_both:g})"
    )
    for name, method in methods.items():
        if isinstance(method.learner, LinearProbe) and TOGETHER not in name:
            said += f", C {method.learner.c:g} ({name})"
    for suffix in ("", f", {TOGETHER}"):
        options = {
            name: method
            for name, method in methods.items()
            if name not in BASELINES
            and WITH_TITLE not in name
            and (TOGETHER in name) == bool(suffix)
        }
        picked = best(list(options.values()))
        methods[CHOSEN + suffix] = picked
        said += f", {next(name for name, method in options.items() if method is picked)}"
    return methods, said


def _mean_of(*methods: Method) -> Method:
    """Their ensemble, each on its own features."""
    members, at = [], 0
    for method in methods:
        width = method.features.shape[1]
        members.append(Member(method.learner, slice(at, at + width)))
        at += width
    choosing = [m.features if m.choosing is None else m.choosing for m in methods]
    features = torch.cat([method.features for method in methods], dim=1)
    return Method(Ensemble(members), features, torch.cat(choosing, dim=1))


def _joined(types: Types) -> Tensor:
    """Meta-training and validation types together."""
    others = types.validation + int(types.train.max()) + 1
    return torch.where(types.validation >= 0, others, types.train)


def _whiten(features: Tensor, train: Tensor, shrinkage: float, width: int | None = None) -> Tensor:
    rows = train >= 0
    fitted = fit_whitening(features[rows], train[rows], shrinkage=shrinkage, width=width)
    return fitted(features)


def _all_types(unit: Tensor, types: Types, run: Run) -> ResidualAdapter:
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
        return _chosen_by(Method(Prototypes(adapter, "cosine"), unit), types.validation)

    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3, weight_decay=0.01)
    fit("types", objective, batches, optimizer, run, epochs=6, validate=validate, patience=2)
    return adapter


def _maml(features: Tensor, types: Types, run: Run, kind: str) -> Method:
    """MAML on whitened features; the epoch is chosen on the validation types."""
    net = FewShotNet(ResidualAdapter(features.shape[1], hidden=64), WAYS)
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
    sampler = EpisodeSampler(types.train, ways=WAYS, shots=5, queries=10)
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
        epochs=4,
        validate=lambda: _chosen_by(Method(learner, features), types.validation),
        patience=2,
    )
    return Method(learner, features)


def _chosen_by(method: Method, validation: Tensor) -> float:
    """Accuracy on 5-shot episodes of the validation types."""
    if method.choosing is not None:
        method = Method(method.learner, method.choosing)
    return float(accuracies(method, validation, 5, _CHOOSING).mean())


def accuracies(method: Method, labels: Tensor, shots: int, episodes: int) -> np.ndarray:
    """``(episodes,)``; the same episodes for every method."""
    sampler = EpisodeSampler(labels, ways=WAYS, shots=shots, queries=QUERIES)
    generator = torch.Generator().manual_seed(shots)
    found = np.empty(episodes)
    for at in range(episodes):
        drawn = sampler.draw(generator)
        classifier = method.learner.adapt(method.features[drawn.support], drawn.support_labels)
        predicted = classifier.scores(method.features[drawn.queries]).argmax(dim=1)
        found[at] = float((predicted == drawn.query_labels).float().mean())
    return found
