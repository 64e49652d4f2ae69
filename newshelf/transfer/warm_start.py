"""Start the fusion from what the towers already know.

A fusion that starts at random has to relearn, from a few thousand products, what the
frozen towers tell apart. Started this way it begins as their principal components side by
side, and fine-tuning moves it from there:

- each tower's input layer projects onto the leading principal components of its features,
  in coordinates that no other tower uses, scaled to a mean squared length of 1;
- what adds to that (attention, feed-forward, gates) begins at zero, and the way to the
  embedding as the identity.

The idea is that of a residual branch that starts as a no-op (Zhang et al., Fixup, 2019)
on a data-dependent first layer (Krähenbühl et al., 2016).
"""

from typing import cast

import torch
from torch import Tensor, nn

from newshelf.nn.encoder import Encoder
from newshelf.nn.fusion import AttentionFusion, EarlyFusion, Fusion, LateFusion
from newshelf.transfer.features import FeatureTable

__all__ = ["warm_start"]

_ATTRIBUTES_LENGTH = 0.3
"""Length of the attributes' token at the start, beside 1 for a tower's."""


@torch.no_grad()
def warm_start(encoder: Encoder, table: FeatureTable) -> None:
    """Set the fusion's weights from the features of the catalogue, in place."""
    fusion = encoder.fusion
    width = encoder.spec.fusion.width
    # The order of the fusion's inputs: attributes, then the towers that there are.
    towers = [
        (rows, present)
        for rows, present, spec in (
            (table.image, table.image_present, encoder.spec.image),
            (table.text, table.text_present, encoder.spec.text),
        )
        if spec is not None
    ]
    shares = _shares([rows.shape[1] for rows, _ in towers], width)
    start = 0
    for position, ((rows, present), share) in enumerate(zip(towers, shares, strict=True), 1):
        block = cast(nn.Sequential, fusion.inputs[position])
        # Pictures that are all damaged leave nothing to take components of.
        if present.any():
            _principal(block, rows[present], start, share)
        start += share
    attributes = cast(nn.Linear, cast(nn.Sequential, fusion.inputs[0])[1])
    nn.init.normal_(
        attributes.weight, std=_ATTRIBUTES_LENGTH / (width * attributes.in_features) ** 0.5
    )
    nn.init.zeros_(attributes.bias)
    _sum_of_inputs(fusion, width)


def _sum_of_inputs(fusion: Fusion, width: int) -> None:
    """Let ``fusion`` begin as the normalised sum of its input layers' results."""
    match fusion:
        case AttentionFusion():
            _silence(fusion.mix, fusion.feed_forward[-1])
            _identity(fusion.output)
        case LateFusion():
            _silence(*(cast(nn.Sequential, block)[-1] for block in fusion.feed_forward))
            _silence(*(cast(nn.Sequential, gate)[-1] for gate in fusion.gates))
            _identity(fusion.output)
        case EarlyFusion():
            _silence(fusion.feed_forward[-1], fusion.direct)
            for at in range(len(fusion.inputs)):
                nn.init.eye_(fusion.direct.weight[:, at * width : (at + 1) * width])


def _silence(*layers: nn.Module) -> None:
    for layer in layers:
        nn.init.zeros_(cast(nn.Linear, layer).weight)
        nn.init.zeros_(cast(nn.Linear, layer).bias)


def _identity(layer: nn.Linear) -> None:
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)


def _shares(features: list[int], width: int) -> list[int]:
    """Coordinates of each tower: in proportion to the square roots of their widths."""
    roots = [size**0.5 for size in features]
    return [
        min(size, int(width * root / sum(roots)))
        for size, root in zip(features, roots, strict=True)
    ]


def _principal(block: nn.Sequential, rows: Tensor, start: int, share: int) -> None:
    """Let ``block`` (norm, linear) put ``share`` principal components at ``start``."""
    norm, linear = cast(nn.LayerNorm, block[0]), cast(nn.Linear, block[1])
    normed = norm(rows)
    mean = normed.mean(dim=0)
    centred = normed - mean
    covariance = centred.T @ centred / max(1, len(rows))
    values, vectors = torch.linalg.eigh(covariance)
    components = vectors[:, -share:].T
    length = values[-share:].clamp(min=0).sum().sqrt().clamp(min=1e-6)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    linear.weight[start : start + share] = components / length
    linear.bias[start : start + share] = -(components @ mean) / length
