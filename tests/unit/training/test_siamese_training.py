"""The scorer's loss beside a loop, and what it learns where the truth is known."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.config import ScorerSettings, Settings
from newshelf.errors import TrainingError
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training.backbone import set_up_torch
from newshelf.training.run import Run
from newshelf.training.siamese import _Batch, _loss, _Sampler, score_all, train_scorer

ITEMS, WIDTH, TASTE = 240, 48, 4
TRAINED_ON = 180
SETTINGS = ScorerSettings(width=16, epochs=10, batch_size=64, learning_rate=3e-3)


def naive_loss(scorer: SiameseScorer, embeddings: Tensor, batch: _Batch) -> float:
    total = 0.0
    for row, target in enumerate(batch.target.tolist()):
        history = embeddings[batch.history[row][batch.mask[row]]].unsqueeze(0)
        mask = torch.ones(1, history.shape[1], dtype=torch.bool)

        def score(item, history=history, mask=mask) -> float:
            return float(scorer(history, mask, embeddings[item].view(1, 1, -1)))

        positive = math.exp(score(target))
        others = sum(
            math.exp(score(item) - float(log_inclusion))
            for item, log_inclusion, forbidden in zip(
                batch.negatives.tolist(),
                batch.log_inclusion[row],
                batch.forbidden[row],
                strict=True,
            )
            if not forbidden
        )
        total -= math.log(positive / (positive + others))
    return total / len(batch.target)


@torch.no_grad()
@pytest.mark.parametrize("ordered", [True, False])
def test_the_loss_equals_the_loop(ordered):
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(50, WIDTH), dim=1)
    scorer = SiameseScorer(ScorerSpec(width=8, hidden=16), WIDTH, temperature=0.5).eval()
    rng = np.random.default_rng(0)
    sequences = [rng.permutation(40)[: 2 + at % 5].astype(np.int64) for at in range(12)]
    sampler = _Sampler(sequences, embeddings, ordered, ScorerSettings(batch_size=6))
    batch = next(iter(sampler.batches(0, torch.Generator().manual_seed(0))))
    assert batch.forbidden.any()
    expected = naive_loss(scorer, embeddings, batch)
    assert float(_loss(scorer, embeddings, batch)) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, list[np.ndarray], np.ndarray]:
    """Embeddings, training sequences and tastes: what is liked is linear in what is seen.

    Four of the 48 directions decide; the others are louder and say nothing. The last 60
    items are new: no training sequence has them.
    """
    rng = np.random.default_rng(3)
    taste = rng.standard_normal((ITEMS, TASTE))
    noise = 1.5 * rng.standard_normal((ITEMS, WIDTH - TASTE))
    turn, _ = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))
    seen = np.concatenate([taste, noise], axis=1) @ turn
    shoppers = rng.standard_normal((240, TASTE))
    liking = shoppers @ taste.T
    sequences = []
    for row in liking:
        noisy = row[:TRAINED_ON] + 0.3 * rng.standard_normal(TRAINED_ON)
        sequences.append(rng.permutation(np.argsort(-noisy)[:10]).astype(np.int64))
    embeddings = F.normalize(torch.tensor(seen, dtype=torch.float32), dim=1)
    return embeddings, sequences, liking


def new_items_auc(scores: np.ndarray, liking: np.ndarray) -> float:
    """How often a liked new item is scored above one that is not liked."""
    hits = []
    for row, truth in zip(scores[:, TRAINED_ON:], liking[:, TRAINED_ON:], strict=True):
        order = np.argsort(-truth)
        liked, not_liked = row[order[:10]], row[order[-30:]]
        hits.append((liked[:, None] > not_liked[None, :]).mean())
    return float(np.mean(hits))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_linear_taste_is_learned_for_items_never_seen(world, said, ordered):
    embeddings, sequences, liking = world
    learn = sequences[:180]
    result = train_scorer(
        embeddings, learn, ordered=ordered, settings=SETTINGS, run=Run(1, said.console)
    )
    asked = sequences[180:]
    learned = new_items_auc(score_all(result.scorer, embeddings, asked), liking[180:])
    plain = torch.stack([embeddings[history].mean(dim=0) for history in asked]) @ embeddings.T
    neighbours = new_items_auc(plain.numpy(), liking[180:])
    assert learned > 0.85
    assert learned > neighbours + 0.05
    assert len(result.losses) == SETTINGS.epochs
    assert result.losses[-1] < result.losses[0]
    assert not result.scorer.training
    assert result.scorer.spec.width == 16


def test_the_seed_decides_everything(world, said):
    embeddings, sequences, _ = world
    settings = SETTINGS.model_copy(update={"epochs": 1})
    first, again, other = (
        train_scorer(
            embeddings,
            sequences[:60],
            ordered=True,
            settings=settings,
            run=Run(seed, said.console),
        )
        for seed in (1, 1, 2)
    )
    assert first.losses == again.losses != other.losses
    for name, value in first.scorer.state_dict().items():
        assert torch.equal(value, again.scorer.state_dict()[name])


def test_a_loss_that_is_no_number_stops_the_training(world, said):
    embeddings, sequences, _ = world
    broken = embeddings.clone()
    broken[sequences[0][0]] = float("nan")
    with pytest.raises(TrainingError, match="loss became nan"):
        train_scorer(broken, sequences, ordered=False, settings=SETTINGS, run=Run(1, said.console))


@torch.no_grad()
def test_scoring_the_catalogue_equals_one_shopper_at_a_time(world):
    embeddings, sequences, _ = world
    torch.manual_seed(0)
    scorer = SiameseScorer(ScorerSpec(width=8, hidden=16, max_history=4), WIDTH).eval()
    histories = [sequence[: 1 + at % 8] for at, sequence in enumerate(sequences[:130])]
    histories[5] = histories[5][:0]
    scores = score_all(scorer, embeddings, histories)
    assert scores.shape == (130, ITEMS)
    assert scores.dtype == np.float32
    for at in (0, 5, 7, 63, 64, 129):
        # The latest four are read.
        history = embeddings[histories[at][-4:]].unsqueeze(0)
        mask = torch.ones(1, history.shape[1], dtype=torch.bool)
        expected = scorer(history, mask, embeddings.unsqueeze(0))[0]
        np.testing.assert_allclose(scores[at], expected.numpy(), atol=1e-4)
    assert (scores[5] == 0).all()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch as a training on two cores has it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    set_up_torch(Settings(threads=2))
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("two_threads")
def test_two_threads_that_add_to_the_same_rows_learn_the_same_each_time(said):
    rng = np.random.default_rng(0)
    # Few products in long histories: each row's gradient has hundreds of parts.
    embeddings = F.normalize(torch.from_numpy(rng.standard_normal((60, 256))).float(), dim=1)
    sequences = [rng.permutation(60)[:40].astype(np.int64) for _ in range(200)]
    settings = ScorerSettings(width=64, epochs=2, batch_size=256)
    first, second = (
        train_scorer(
            embeddings, sequences, ordered=False, settings=settings, run=Run(1, said.console)
        )
        for _ in range(2)
    )
    assert first.losses == second.losses
    for name, weight in first.scorer.state_dict().items():
        assert torch.equal(weight, second.scorer.state_dict()[name]), name
