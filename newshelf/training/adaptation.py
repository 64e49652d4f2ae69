"""Domain adaptation of heads to products that look different and state nothing.

Photographs of other sellers, for example: a classifier that has learned from the labelled products
and, without labels, from these (AdaBN, Li et al., 2018; MCC, Jin et al., 2020) labels them, and the
head learns from all. It stays one linear layer, so that what was validated is what is served.

Without labels there, validation is reversed (Zhong et al., ECML 2010): a head learned from labelled
products labels the others; one learned from these must be right on labelled ones held out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor, nn

from newshelf.config import TrainingSettings
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import HeadName
from newshelf.training.adaptation_losses import (
    MCC,
    METHODS,
    AdaptationLoss,
    AdaptationNetwork,
    AdaptSettings,
)
from newshelf.training.choose import AUTO, Candidate, Choice, Score, choose
from newshelf.training.features import FeatureTable
from newshelf.training.few_shot import LinearHead, fit_probe, set_head
from newshelf.training.finetune import (
    STATED_BY,
    FinetuneResult,
    columns,
    embed,
    head_accuracy,
    held_out,
)
from newshelf.training.folds import Fold, mean_recall, validation_folds
from newshelf.training.labels import UNLABELLED, HeadLabels
from newshelf.training.loop import fit
from newshelf.training.run import Run

_MIN_UNLABELLED = 50
"""Products that state nothing, below which a head is not adapted to them."""
_TRIED = ("adabn", "mcc")
"""Methods that ``auto`` compares with none."""
_DIFFERENT = 0.75
"""Area under the ROC curve of a classifier that tells them from labelled products."""


def adapt(
    features: Tensor,
    labels: Tensor,
    target: Tensor,
    run: Run,
    *,
    method: type[AdaptationLoss] = MCC,
    settings: AdaptSettings | None = None,
) -> AdaptationNetwork:
    """Return a network, in ``eval`` mode, learned from the source's labels for the target.

    ``features (N, F)`` and ``target (M, F)``, without labels, are best few columns of a mean square
    of about 1; ``labels (N,)`` are int64 in 0 … K - 1.
    """
    settings = settings or AdaptSettings()
    total = settings.steps * settings.epochs

    def batches(_epoch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        size = (settings.steps, settings.batch_size)
        ours = torch.randint(len(features), size, generator=generator)
        theirs = torch.randint(len(target), size, generator=generator)
        for rows, others in zip(ours, theirs, strict=True):
            yield features[rows], labels[rows], target[others]

    # The network's start is part of the seed, without disturbing other random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = AdaptationNetwork(features.shape[1], int(labels.max()) + 1, settings)
        objective = method(network, total).to(features.device)
        optimizer = torch.optim.SGD(
            objective.parameters(),
            lr=settings.learning_rate,
            momentum=0.9,
            weight_decay=1e-3,
            nesterov=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + 10 * step / total) ** -0.75
        )
        fit("adapt", objective, batches, optimizer, run, epochs=settings.epochs, schedule=schedule)
    network.requires_grad_(requires_grad=False)
    if objective.target_statistics and len(target) > 1:
        network.norm.momentum = 1.0
        network.norm.train()
        network(target)
    return network.eval()


@dataclass(frozen=True)
class _Products:
    """All products, as a head and as the adaptation reads them."""

    embeddings: Tensor
    """``(N, 512)``, without what states the answer."""
    content: Tensor
    """``(N, 256)``: components of the frozen towers' features."""

    def differ(self, rows: Tensor, others: Tensor) -> bool:
        """Return whether a classifier tells the two sets of rows apart."""
        truth = np.repeat([0, 1], [len(rows), len(others)])
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        content = self.content[torch.cat([rows, others])].numpy()
        model = LogisticRegression(max_iter=200)
        areas = cross_val_score(model, content, truth, cv=folds, scoring="roc_auc")
        return float(areas.mean()) >= _DIFFERENT

    def fit(
        self, method: str, target: Tensor, rows: Tensor, others: Tensor, run: Run
    ) -> LinearHead:
        """Return a head learned from the classes of ``rows`` and the method's of ``others``."""
        if method != "none":
            ours, theirs = self.content[rows], self.content[others]
            network = adapt(ours, target[rows], theirs, run, method=METHODS[method])
            target = target.index_copy(0, others, network(theirs)[1].argmax(dim=1))
            rows = torch.cat([rows, others])
        return fit_probe(self.embeddings[rows], target[rows])

    def choose(
        self, name: HeadName, target: Tensor, others: Tensor, budget_s: float, run: Run
    ) -> Choice:
        """Choose a method by reverse validation; ``target`` is -1 for unlabelled."""
        quiet = Run(run.seed, run.console, quiet=True)

        def measure(candidate: Candidate) -> Score:
            def held(fold: Fold) -> float:
                weight, bias = self.fit(candidate.name, target, fold.learn, others, quiet)
                labels = (self.embeddings[others] @ weight.T + bias).argmax(dim=1)
                known = target.index_copy(0, others, labels)
                # The same way back for all methods, so that their labels alone differ.
                weight, bias = self.fit("adabn", known, others, fold.learn, quiet)
                predicted = (self.embeddings[fold.held] @ weight.T + bias).argmax(dim=1)
                return mean_recall(predicted, target[fold.held])

            return validation_folds(target, self.content, run.seed).score(held)

        candidates = [Candidate(method) for method in ("none", *_TRIED)]
        return choose(f"adaptation of {name}", candidates, measure, "none", budget_s, run)


def adapt_heads(
    encoder: Encoder,
    table: FeatureTable,
    labels: dict[HeadName, HeadLabels],
    training: TrainingSettings,
    run: Run,
) -> tuple[list[FinetuneResult], list[Choice]]:
    """Adapt the heads of type, colour and material to products that state nothing, in place.

    The target's head is left out: its few labels are those of one category.
    """
    results: list[FinetuneResult] = []
    choices: list[Choice] = []
    held = held_out(len(table))
    for name in [name for name in STATED_BY if name in labels]:
        nothing = (table.attributes[:, columns(STATED_BY[name])] == 0).all(dim=1)
        others, method = nothing.nonzero().flatten(), str(training.adaptation)
        if method == "none" or len(others) < _MIN_UNLABELLED:
            continue
        products = _Products(embed(encoder, table, masked=STATED_BY[name]), _components(table))
        target = labels[name].target
        known = target.masked_fill(held, UNLABELLED)
        rows = known.ne(UNLABELLED).nonzero().flatten()
        if method == AUTO:
            if not products.differ(rows, others):
                continue
            choices.append(products.choose(name, known, others, training.budget_s, run))
            method = choices[-1].name
        if method != "none":
            fitted = products.fit(method, known, rows, others, run)
            tested = (held & target.ne(UNLABELLED)).nonzero().flatten()
            set_head(cast(nn.Linear, encoder.heads[name]), fitted)
            accuracy = head_accuracy(encoder, table, name, target, tested)
            results.append(FinetuneResult([], {name: accuracy}, {name: len(tested)}))
    return results, choices


def _components(table: FeatureTable) -> Tensor:
    """Return ``(N, 256)`` principal components of all content, of mean square 1."""
    content = table.content().astype(np.float64)
    pca = PCA(min(256, *content.shape), svd_solver="covariance_eigh")
    found = pca.fit_transform(content)
    return torch.from_numpy(found / max(found.std(), 1e-6)).float()
