"""The fusion begins as the towers' principal components, side by side."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.training.features import FeatureTable
from newshelf.training.finetune import embed, warm_start
from tests.unit.training.synthetic import IMAGE, TEXT, clusters, encoder_of, table_of

ROWS = 150


@pytest.fixture
def table() -> FeatureTable:
    """As real features are: of different lengths, and far from the origin."""
    kind = torch.arange(ROWS) % 6
    image = clusters(kind, IMAGE, 0.8, 1) + 3 * torch.randn(1, IMAGE)
    text = clusters(kind // 2, TEXT, 0.8, 2) + 3 * torch.randn(1, TEXT)
    return table_of(9 * image, text)


def components(rows: Tensor, share: int) -> Tensor:
    """Principal components of the normed rows by SVD, at a mean squared length of 1."""
    normed = F.layer_norm(rows, rows.shape[1:])
    centred = normed - normed.mean(dim=0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    length = (values[:share].square().sum() / len(rows)).sqrt()
    return centred @ directions[:share].T / length


def correlation(one: Tensor, other: Tensor) -> float:
    above = torch.triu_indices(len(one), len(one), offset=1)
    cosines = [
        (F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T)[above[0], above[1]]
        for rows in (one, other)
    ]
    return float(torch.corrcoef(torch.stack(cosines))[0, 1])


def reference(table: FeatureTable, share: dict[str, int]) -> Tensor:
    parts = []
    for name, size in share.items():
        present = getattr(table, f"{name}_present")
        part = torch.zeros(len(table), size)
        part[present] = components(getattr(table, name)[present], size)
        parts.append(part)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("kind", ["early", "late", "attention"])
@pytest.mark.parametrize(
    "share", [{"image": IMAGE, "text": TEXT}, {"image": IMAGE}, {"text": TEXT}]
)
def test_neighbours_are_those_of_the_towers(table, share, kind):
    encoder = encoder_of({}, image="image" in share, text="text" in share, kind=kind)
    have = torch.zeros(ROWS, dtype=torch.bool)
    for name in share:
        have |= getattr(table, f"{name}_present")
    expected = reference(table, share)[have]
    at_random = correlation(embed(encoder, table)[have], expected)
    warm_start(encoder, table)
    embedding = embed(encoder, table)
    assert torch.isfinite(embedding).all()
    assert at_random < 0.9
    assert correlation(embedding[have], expected) > 0.97


def test_a_narrow_fusion_takes_the_leading_components(table):
    """In proportion to the roots of the widths: 22 and 17 of 40 coordinates."""
    encoder = encoder_of({}, width=40)
    warm_start(encoder, table)
    embedding = embed(encoder, table)
    assert correlation(embedding, reference(table, {"image": 22, "text": 17})) > 0.97
    assert embedding[:, :40].count_nonzero() > 0
    assert embedding[:, 40:].count_nonzero() == 0


def test_towers_share_no_coordinate(table):
    encoder = encoder_of({})
    warm_start(encoder, table)
    image, text = (encoder.fusion.inputs[at][1].weight.abs().sum(dim=1) > 0 for at in (1, 2))
    assert image.any()
    assert text.any()
    assert not (image & text).any()


@pytest.mark.parametrize("kind", ["early", "late", "attention"])
def test_attributes_say_little_at_the_start(table, kind):
    """A value that was never seen must not outweigh what a picture shows."""
    encoder = encoder_of({}, kind=kind)
    warm_start(encoder, table)
    bare = embed(encoder, table)
    table.attributes[:] = torch.randint(1, 64, table.attributes.shape)
    assert F.cosine_similarity(bare, embed(encoder, table)).mean() > 0.8


@pytest.mark.parametrize("gone", ["image", "text"])
def test_a_tower_whose_inputs_are_all_damaged_does_no_harm(table, gone):
    nothing = {gone: torch.zeros_like(getattr(table, gone))}
    nothing[f"{gone}_present"] = torch.zeros(ROWS, dtype=torch.bool)
    encoder = encoder_of({})
    warm_start(encoder, dataclasses.replace(table, **nothing))
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())


def test_fewer_products_than_components(table):
    index = torch.arange(3)
    few = FeatureTable(*(getattr(table, field.name)[index] for field in dataclasses.fields(table)))
    encoder = encoder_of({})
    warm_start(encoder, few)
    assert torch.isfinite(embed(encoder, few)).all()
