"""Heads that read inner stages of the image tower in addition to the embedding.

For classes that ImageNet lacks, earlier stages carry more than the pooled output. A head's second
layer is a logistic regression on the leading components of their maps. For products with a
picture, the logits of a head are::

    (1 - w) · head(embedding)  +  w · second(maps)

a logarithmic opinion pool (Genest and Zidek, 1986). Without a picture they are those of the
embedding alone, so a product that has only a text is classified as before.
"""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import HeadName
from newshelf.training.choose import Candidate, Choice, Fold, Score, by_recall, choose
from newshelf.training.features import FeatureTable
from newshelf.training.few_shot import fit_probe
from newshelf.training.labels import UNLABELLED
from newshelf.training.run import Run
from newshelf.training.tower_tuning import PROBE_STRENGTH, linear_probe

_SHARES = {"pooled": 0.0, "inner-stages": 0.5, "inner-stages-alone": 1.0}
"""Methods, and the share w of the inner stages in the logits."""
_COMPONENTS = 128
_MOST_ROWS = 5000
"""Number of pictures that the components are computed from, and that a head learns from."""


def add_inner_heads(
    encoder: Encoder,
    table: FeatureTable,
    targets: Mapping[HeadName, Tensor],
    starts: Mapping[HeadName, Tensor],
    method: str,
    budget_s: float,
    run: Run,
) -> list[Choice]:
    """Add a second layer to each head for which ``method`` says so; changes ``encoder`` in place.

    If no head needs the inner stages, the tower does not return them any more. ``targets`` are the
    classes ``(N,)`` int64 of products to learn from, -1 elsewhere. ``auto`` compares with
    ``starts``, embeddings ``(N, 512)`` before fine-tuning, without the columns that state a head's
    answer, and its choices are returned.
    """
    tower, image = encoder.image_tower, encoder.spec.image
    if table.inner is None or tower is None or image is None or not table.image_present.any():
        return []
    choices: list[Choice] = []
    shares: dict[HeadName, float] = {}
    inner = table.inner.numpy()
    pictures = np.flatnonzero(table.image_present.numpy())
    drawn = np.random.default_rng(run.seed).permutation(pictures)[:_MOST_ROWS]
    count = min(_COMPONENTS, len(drawn), inner.shape[1])
    pca = PCA(count, svd_solver="randomized", random_state=run.seed).fit(inner[drawn])
    components = torch.from_numpy(pca.transform(inner))
    for head, target in targets.items():
        classes = encoder.spec.labels[head]
        rows = target.masked_fill(~table.image_present, UNLABELLED)
        name = method
        if method == "auto":
            measure = _validation(rows, starts[head], components, table.image, run.seed)
            left = budget_s - sum(choice.seconds for choice in choices)
            candidates = [Candidate(name, {"share": share}) for name, share in _SHARES.items()]
            choices.append(choose(f"features of {head}", candidates, measure, "pooled", left, run))
            name = choices[-1].name
        if len(rows[rows != UNLABELLED].unique()) < len(classes):
            run.tell(f"{head}: pooled features, since a class has no picture to learn from")
        elif _SHARES[name]:
            layer = _second_layer(rows, components, classes)
            encoder.inner_heads[head] = _unprojected(layer, pca)
            shares[head] = _SHARES[name]
    if not shares:
        image = tower.read_stages(image, (), ())
    encoder.spec = encoder.spec.model_copy(update={"image": image, "inner_heads": shares})
    return choices


def _validation(
    target: Tensor, start: Tensor, inner: Tensor, look: Tensor, seed: int
) -> Callable[[Candidate], Score]:
    """Return the validation of a share; look-alikes are those whose ``look`` is similar."""
    pca = PCA(min(_COMPONENTS, *start.shape), svd_solver="randomized", random_state=seed)
    start = torch.from_numpy(pca.fit_transform(start.numpy()))

    @cache
    def logits(fold: Fold) -> list[Tensor]:
        heads = [
            (rows, fit_probe(rows[fold.learn], target[fold.learn], PROBE_STRENGTH))
            for rows in (start, inner)
        ]
        return [rows[fold.held] @ weight.T + bias for rows, (weight, bias) in heads]

    def predict(method: str, fold: Fold) -> Tensor:
        first, second = logits(fold)
        return first.lerp(second, _SHARES[method]).argmax(dim=1)

    return by_recall(target, look, seed, predict)


def _second_layer(target: Tensor, inner: Tensor, classes: tuple[str, ...]) -> nn.Linear:
    each = max(1, _MOST_ROWS // len(classes))
    rows = torch.cat([torch.nonzero(target == n).flatten()[:each] for n in range(len(classes))])
    return linear_probe(inner[rows], target[rows], classes)


@torch.no_grad()
def _unprojected(layer: nn.Linear, pca: PCA) -> nn.Linear:
    """Return the layer that reads features where ``layer`` reads their components."""
    directions = torch.from_numpy(pca.components_)
    whole = nn.Linear(directions.shape[1], layer.out_features)
    whole.weight.copy_(layer.weight @ directions)
    whole.bias.copy_(layer.bias - whole.weight @ torch.from_numpy(pca.mean_))
    return whole.requires_grad_(False)
