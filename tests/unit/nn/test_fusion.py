"""Attention fusion beside a loop over rows, tokens and heads."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.nn.encoder import AttentionFusion
from newshelf.nn.spec import FusionSpec

WIDTHS = [6, 10, 4]


@pytest.fixture
def fusion() -> AttentionFusion:
    torch.manual_seed(1)
    fusion = AttentionFusion(FusionSpec(width=16, heads=4), WIDTHS, 12).eval()
    # The parameters that begin near zero would hide a mistake in how they are used.
    for parameter in (fusion.modality, fusion.nothing, fusion.query):
        torch.nn.init.normal_(parameter)
    return fusion


def drawn(rows: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, width, generator=generator) for width in WIDTHS]


def every_mask() -> Tensor:
    return torch.tensor([[n & 1 > 0, n & 2 > 0, n & 4 > 0] for n in range(8)])


def naive_row(fusion: AttentionFusion, features: list[Tensor], present: list[bool]) -> Tensor:
    """One product, from the tokens that it has and no others."""
    width, size = 16, 16 // fusion.heads
    tokens = [
        fusion.inputs[at](features[at]) + fusion.modality[at] for at in range(3) if present[at]
    ]
    mean = sum(tokens) / len(tokens) if tokens else torch.zeros(width)
    normed = [fusion.norm(token) for token in [fusion.nothing, *tokens]]
    keys = [F.linear(t, fusion.key_value.weight, fusion.key_value.bias)[:width] for t in normed]
    values = [F.linear(t, fusion.key_value.weight, fusion.key_value.bias)[width:] for t in normed]
    pooled = []
    for head in range(fusion.heads):
        part = slice(head * size, (head + 1) * size)
        logits = [float(key[part] @ fusion.query[part]) / math.sqrt(size) for key in keys]
        total = sum(math.exp(logit) for logit in logits)
        pooled.append(
            sum(
                math.exp(logit) / total * value[part]
                for logit, value in zip(logits, values, strict=True)
            )
        )
    mixed = mean + fusion.mix(torch.cat(pooled))
    mixed = mixed + fusion.feed_forward(mixed)
    output = fusion.output(mixed)
    return output / output.norm()


@torch.no_grad()
def test_equals_the_loop_for_every_set_of_modalities(fusion):
    features, present = drawn(8), every_mask()
    fused = fusion(features, present)
    expected = [
        naive_row(fusion, [rows[at] for rows in features], present[at].tolist()) for at in range(8)
    ]
    torch.testing.assert_close(fused, torch.stack(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("modality", range(3))
def test_what_is_masked_may_hold_anything_finite(fusion, modality):
    features, other = drawn(8), drawn(8, seed=9)
    present = every_mask()
    other = [other[at] * 1000 if at == modality else rows for at, rows in enumerate(features)]
    before, after = fusion(features, present), fusion(other, present)
    absent = ~present[:, modality]
    assert torch.equal(before[absent], after[absent])
    assert (before[~absent] - after[~absent]).norm(dim=1).min() > 1e-3


@torch.no_grad()
def test_the_embedding_has_unit_length_and_each_modality_counts(fusion):
    fused = fusion(drawn(1), every_mask()[:1]), fusion(drawn(8), every_mask())
    for rows in fused:
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    same = [rows[:1].expand(8, -1) for rows in drawn(1)]
    distances = torch.cdist(fusion(same, every_mask()), fusion(same, every_mask()))
    assert distances[~torch.eye(8, dtype=torch.bool)].min() > 1e-3


def test_gradients_are_finite_and_reach_every_parameter(fusion):
    fusion(drawn(8), every_mask())[:, 0].sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_modality_that_is_absent_everywhere_learns_nothing(fusion):
    present = torch.tensor([[True, False, True]]).expand(5, -1)
    fusion(drawn(5), present)[:, 0].sum().backward()
    for parameter in fusion.inputs[1].parameters():
        assert parameter.grad.abs().max() == 0
    assert fusion.modality.grad[1].abs().max() == 0
