"""The Siamese scorer beside a loop over rows, candidates and history."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.nn.scorer import HistoryScorer, SiameseScorer
from newshelf.nn.spec import ScorerSpec

LENGTHS = [4, 1, 0, 3]


def units(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.fixture
def score() -> HistoryScorer:
    score = HistoryScorer(temperature=0.1)
    with torch.no_grad():
        score.log_sharpness.fill_(1.1)
        score.weight_logit.fill_(-0.4)
    return score


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(1)


def naive(score: HistoryScorer, history: Tensor, candidate: Tensor) -> tuple[float, list[float]]:
    """One candidate against the items of one history, without padding."""
    if len(history) == 0:
        return 0.0, []
    similarity = [float(candidate @ item) for item in history]
    sharp = [math.exp(math.exp(1.1) * value) for value in similarity]
    attention = [value / sum(sharp) for value in sharp]
    attended = sum(a * s for a, s in zip(attention, similarity, strict=True))
    mean = sum(similarity) / len(similarity)
    weight = 1 / (1 + math.exp(0.4))
    return (weight * attended + (1 - weight) * mean) / 0.1, attention


@torch.no_grad()
def test_equals_the_loop(score, mask):
    history, candidates = units(4, 4, 8), units(4, 6, 8, seed=1)
    scores, attention = score(history, mask, candidates)
    assert scores.shape == (4, 6)
    assert attention.shape == (4, 6, 4)
    for row, length in enumerate(LENGTHS):
        for column in range(6):
            expected, weights = naive(score, history[row, :length], candidates[row, column])
            assert float(scores[row, column]) == pytest.approx(expected, abs=1e-4)
            assert attention[row, column].tolist() == pytest.approx(
                [*weights, *[0.0] * (4 - length)], abs=1e-5
            )


@torch.no_grad()
@pytest.mark.parametrize("junk", [0.0, 1e4, -1e4, float("inf"), float("nan")])
def test_padded_places_may_hold_anything(score, mask, junk):
    history, candidates = units(4, 4, 8), units(4, 6, 8, seed=1)
    dirty = history.masked_fill(~mask.unsqueeze(-1), junk)
    for clean, actual in zip(
        score(history, mask, candidates), score(dirty, mask, candidates), strict=True
    ):
        torch.testing.assert_close(actual, clean)


@torch.no_grad()
def test_more_padding_changes_nothing(score, mask):
    history, candidates = units(4, 4, 8), units(4, 6, 8, seed=1)
    longer = torch.cat([history, units(4, 30, 8, seed=2)], dim=1)
    wider = torch.cat([mask, torch.zeros(4, 30, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(
        score(longer, wider, candidates)[0], score(history, mask, candidates)[0]
    )


@torch.no_grad()
@pytest.mark.parametrize("places", [0, 1, 5])
def test_an_empty_history_scores_zero(score, places):
    scores, attention = score(
        units(2, places, 8), torch.zeros(2, places, dtype=torch.bool), units(2, 3, 8)
    )
    assert torch.equal(scores, torch.zeros(2, 3))
    assert torch.equal(attention, torch.zeros(2, 3, places))


def test_gradients_of_an_empty_history_are_finite(score):
    history = units(2, 4, 8).requires_grad_()
    mask = torch.tensor([[False] * 4, [True, True, False, False]])
    score(history, mask, units(2, 3, 8, seed=1))[0].sum().backward()
    assert torch.isfinite(history.grad).all()
    assert history.grad[0].count_nonzero() == 0
    assert history.grad[1, 2:].count_nonzero() == 0
    assert history.grad[1, :2].count_nonzero() > 0


@torch.no_grad()
def test_what_resembles_the_history_scores_higher(score):
    history = units(1, 3, 8)
    candidates = torch.stack([history[0, 1], -history[0, 1]]).unsqueeze(0)
    scores, attention = score(history, torch.ones(1, 3, dtype=torch.bool), candidates)
    assert scores[0, 0] > 0 > scores[0, 1]
    assert attention[0, 0].argmax() == 1


@pytest.fixture
def siamese() -> SiameseScorer:
    torch.manual_seed(2)
    return SiameseScorer(ScorerSpec(width=8, hidden=16), 12).eval()


@torch.no_grad()
def test_both_sides_pass_the_same_projection(siamese):
    """With one item on each side, who is history and who is candidate does not matter."""
    one, other = units(5, 1, 12), units(5, 1, 12, seed=1)
    mask = torch.ones(5, 1, dtype=torch.bool)
    torch.testing.assert_close(siamese(one, mask, other), siamese(other, mask, one))
    similarity = (siamese.project(one) * siamese.project(other)).sum(-1)
    torch.testing.assert_close(siamese(one, mask, other), similarity / 0.07)


@torch.no_grad()
def test_vectors_have_unit_length_and_rows_do_not_touch_each_other(siamese):
    rows = units(6, 12)
    vectors = siamese.project(rows)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(siamese.project(rows[3:4]), vectors[3:4])


def test_gradients_reach_every_parameter(siamese):
    mask = torch.tensor([[True, True, False], [True, True, True]])
    siamese(units(2, 3, 12), mask, units(2, 4, 12, seed=1))[:, 0].sum().backward()
    for name, parameter in siamese.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
