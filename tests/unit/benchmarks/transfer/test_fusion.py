"""The measures of the fusion task beside loops."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.transfer.fusion import _kept, _recall, _without
from newshelf.training.features import FeatureTable

N = 60


def unit(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(N, 8, generator=generator), dim=1)


def test_neighbours_kept_equals_the_loop():
    complete, noise = unit(1), unit(2)
    partial = F.normalize(complete + 0.5 * noise, dim=1)
    new = torch.arange(N) % 3 == 0
    shares = []
    for at in range(0, N, 3):
        nearest = []
        for vectors in (complete, partial):
            scores = {
                other: float(vectors[at] @ complete[other]) for other in range(N) if other != at
            }
            nearest.append(set(sorted(scores, key=lambda one: -scores[one])[:10]))
        shares.append(len(nearest[0] & nearest[1]) / 10)
    assert _kept(complete, partial, new) == pytest.approx(np.mean(shares))
    assert _kept(complete, complete, new) == pytest.approx(1.0)


def test_recall_of_rooms_equals_the_loop():
    vectors = unit(3)
    near = (vectors @ vectors.T).topk(3, dim=1).indices.numpy()
    rooms = [near[1], near[2], np.array([7, 8, 11, 30])]
    hits, asked = 0, 0
    for room in rooms:
        for left_out in room:
            others = [item for item in room if item != left_out]
            scores = sum(vectors[item] for item in others) @ vectors.T
            ranked = [i for i in scores.argsort(descending=True).tolist() if i not in others]
            hits += left_out in ranked[:10]
            asked += 1
    assert _recall(vectors, rooms) == pytest.approx(hits / asked)
    assert 0 < hits < asked


def test_what_is_hidden_is_absent_and_zero():
    some = torch.arange(4) < 2
    table = FeatureTable(
        torch.ones(4, 3), torch.ones(4).bool(), torch.ones(4, 2), torch.ones(4).bool(),
        torch.zeros(4, 9, dtype=torch.int64),
    )  # fmt: skip
    bare = _without(table, "picture", some)
    assert bare.image_present.tolist() == [False, False, True, True]
    assert bare.image.sum() == 6
    assert torch.equal(bare.text, table.text)
    assert _without(table, "text", some).text_present.tolist() == [False, False, True, True]
