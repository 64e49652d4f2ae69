"""Early, late and attention fusion compared with loops, and what all of them keep."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.nn.encoder import FUSIONS, AttentionFusion, EarlyFusion, LateFusion
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


KINDS = ("early", "late", "attention")
EVERY_MASK = torch.tensor([[n & 1 > 0, n & 2 > 0, n & 4 > 0] for n in range(8)])


def fusion_of(kind: str) -> nn.Module:
    torch.manual_seed(1)
    fusion = FUSIONS[kind](FusionSpec(kind=kind, width=16, heads=4), WIDTHS, 12).eval()
    for name, parameter in fusion.named_parameters():
        # Those that begin near zero would hide a mistake in how they are used.
        if name in {"modality", "nothing", "query"}:
            nn.init.normal_(parameter)
    return fusion


def naive_early(fusion: EarlyFusion, features: list[Tensor], present: list[bool]) -> Tensor:
    joined: list[Tensor] = []
    for at in range(3):
        joined.append(fusion.inputs[at](features[at]) if present[at] else torch.zeros(16))
    joined.append(torch.tensor([1.0 if here else 0.0 for here in present]))
    row = torch.cat(joined)
    return fusion.direct(row) + fusion.feed_forward(row)


def naive_late(fusion: LateFusion, features: list[Tensor], present: list[bool]) -> Tensor:
    here = [at for at in range(3) if present[at]]
    if not here:
        return fusion.output(fusion.nothing)
    tokens = {at: fusion.inputs[at](features[at]) for at in here}
    gates = {at: math.exp(float(fusion.gates[at](tokens[at]))) for at in here}
    mixed = sum(
        gates[at] / sum(gates.values()) * (tokens[at] + fusion.feed_forward[at](tokens[at]))
        for at in here
    )
    return fusion.output(mixed)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "naive"), [("early", naive_early), ("late", naive_late)])
def test_equals_the_loop_for_every_set_of_modalities_in_each_kind(kind, naive):
    fusion, features = fusion_of(kind), drawn(8)
    for at, present in enumerate(EVERY_MASK.tolist()):
        expected = naive(fusion, [rows[at] for rows in features], present)
        fused = fusion([rows[at : at + 1] for rows in features], EVERY_MASK[at : at + 1])[0]
        torch.testing.assert_close(fused, expected / expected.norm(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modality", range(3))
def test_what_is_masked_may_hold_anything_finite_in_each_kind(kind, modality):
    fusion, features, other = fusion_of(kind), drawn(8), drawn(8, seed=9)
    other = [other[at] * 1000 if at == modality else rows for at, rows in enumerate(features)]
    before, after = fusion(features, EVERY_MASK), fusion(other, EVERY_MASK)
    absent = ~EVERY_MASK[:, modality]
    assert torch.equal(before[absent], after[absent])
    assert (before[~absent] - after[~absent]).norm(dim=1).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_unit_length_and_every_set_of_modalities_its_own(kind):
    fusion = fusion_of(kind)
    same = [rows[:1].expand(8, -1) for rows in drawn(1)]
    fused = fusion(same, EVERY_MASK)
    torch.testing.assert_close(fused.norm(dim=1), torch.ones(8))
    assert torch.cdist(fused, fused)[~torch.eye(8, dtype=torch.bool)].min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_reach_every_parameter_in_each_kind(kind):
    fusion = fusion_of(kind)
    fusion(drawn(8), EVERY_MASK)[:, 0].sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_see_each_other(kind):
    fusion, features = fusion_of(kind), drawn(8)
    alone = torch.cat(
        [fusion([rows[at : at + 1] for rows in features], EVERY_MASK[at : at + 1])
         for at in range(8)]
    )  # fmt: skip
    torch.testing.assert_close(fusion(features, EVERY_MASK), alone, atol=1e-6, rtol=1e-5)
