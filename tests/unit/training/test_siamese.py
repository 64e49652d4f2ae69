"""The scorer's samples, its loss compared with a loop, and what it learns."""

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.catalog.interactions import Sequences
from newshelf.config import ScorerSettings, Settings
from newshelf.errors import TrainingError
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training import siamese
from newshelf.training.backbone import set_up_torch
from newshelf.training.run import Run
from newshelf.training.siamese import _Batch, _loss, _Sampler, score_all, train_scorer

WORLD_ITEMS, WIDTH, TASTE = 240, 48, 4
TRAINED_ON = 180
SETTINGS = ScorerSettings(width=16, epochs=10, batch_size=64, learning_rate=3e-3)


def of(sequences: list[np.ndarray], ordered: bool = True) -> Sequences:
    """Of shoppers who came back each second, or baskets."""
    return Sequences(sequences, [np.arange(len(one)) for one in sequences] if ordered else None)


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
                batch.masked[row],
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
    sampler = _Sampler(of(sequences, ordered), embeddings, ScorerSettings(batch_size=6))
    batch = next(iter(sampler.batches(0, torch.Generator().manual_seed(0))))
    assert batch.masked.any()
    expected = naive_loss(scorer, embeddings, batch)
    assert float(_loss(scorer, embeddings, batch)) == pytest.approx(expected, rel=1e-4)


def padded_loss(scorer: SiameseScorer, embeddings: Tensor, batch: _Batch) -> Tensor:
    """By the module that is served, from histories with their padding."""
    history, candidates = embeddings[batch.history], embeddings[batch.negatives]
    scores = scorer(history, batch.mask, candidates.expand(len(history), -1, -1))
    targets = torch.searchsorted(batch.negatives, batch.target)
    positive = scores.gather(1, targets.unsqueeze(1))
    others = (scores - batch.log_inclusion).masked_fill(batch.masked, float("-inf"))
    losses = torch.cat([positive, others], dim=1).logsumexp(dim=1) - positive.squeeze(1)
    return (batch.weight * losses).mean()


@pytest.mark.parametrize("rows", [5, 64])
@pytest.mark.parametrize("sharpness", [4.0, 60.0])
def test_the_gradients_are_those_of_the_padded_histories(rows, sharpness):
    """Histories of 1 to 40 items, one of which comes twice."""
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(90, WIDTH, dtype=torch.float64), dim=1)
    scorer = SiameseScorer(ScorerSpec(width=8, hidden=16), WIDTH, temperature=0.5).double().eval()
    torch.nn.init.constant_(scorer.score.log_sharpness, math.log(sharpness))
    rng = np.random.default_rng(0)
    sequences = [rng.permutation(90)[: 2 + at].astype(np.int64) for at in range(40)]
    sequences = [np.append(one, one[:1]) for one in sequences]
    sampler = _Sampler(of(sequences), embeddings, ScorerSettings(batch_size=rows))
    batch = next(iter(sampler.batches(0, torch.Generator().manual_seed(0))))
    found = []
    for loss_of in (_loss, padded_loss):
        scorer.zero_grad()
        loss = loss_of(scorer, embeddings, batch)
        loss.backward()
        found.append([loss.detach(), *(one.grad for one in scorer.parameters())])
    for bagged, padded in zip(*found, strict=True):
        torch.testing.assert_close(bagged, padded, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, list[np.ndarray], np.ndarray]:
    """Embeddings, training sequences and tastes: what is liked is linear in what is seen.

    Four of the 48 directions decide; the others are louder and say nothing. The last 60
    items are new: no training sequence has them.
    """
    rng = np.random.default_rng(3)
    taste = rng.standard_normal((WORLD_ITEMS, TASTE))
    noise = 1.5 * rng.standard_normal((WORLD_ITEMS, WIDTH - TASTE))
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
    scorer, losses = train_scorer(embeddings, of(learn, ordered), SETTINGS, Run(1, said.console))
    asked = sequences[180:]
    learned = new_items_auc(score_all(scorer, embeddings, asked), liking[180:])
    plain = torch.stack([embeddings[history].mean(dim=0) for history in asked]) @ embeddings.T
    neighbours = new_items_auc(plain.numpy(), liking[180:])
    assert learned > 0.85
    assert learned > neighbours + 0.05
    assert len(losses) == SETTINGS.epochs
    assert losses[-1] < losses[0]
    assert not scorer.training
    assert scorer.spec.width == 16


def test_the_seed_decides_everything(world, said):
    embeddings, sequences, _ = world
    settings = SETTINGS.model_copy(update={"epochs": 1})
    first, again, other = (
        train_scorer(embeddings, of(sequences[:60]), settings, Run(seed, said.console))
        for seed in (1, 1, 2)
    )
    assert first[1] == again[1] != other[1]
    for name, value in first[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name])


def test_a_loss_that_is_no_number_stops_the_training(world, said):
    embeddings, sequences, _ = world
    broken = embeddings.clone()
    broken[sequences[0][0]] = float("nan")
    with pytest.raises(TrainingError, match="loss became nan"):
        train_scorer(broken, Sequences(sequences), SETTINGS, Run(1, said.console))


@torch.no_grad()
def test_scoring_the_catalogue_equals_one_shopper_at_a_time(world):
    embeddings, sequences, _ = world
    torch.manual_seed(0)
    scorer = SiameseScorer(ScorerSpec(width=8, hidden=16, max_history=4), WIDTH).eval()
    histories = [sequence[: 1 + at % 8] for at, sequence in enumerate(sequences[:130])]
    histories[5] = histories[5][:0]
    scores = score_all(scorer, embeddings, histories)
    assert scores.shape == (130, WORLD_ITEMS)
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
    sequences = [rng.permutation(60)[:40].astype(np.int64) for _ in range(100)]
    settings = ScorerSettings(width=64, epochs=1, batch_size=256)
    first, second = (
        train_scorer(embeddings, Sequences(sequences), settings, Run(1, said.console))
        for _ in range(2)
    )
    assert first[1] == second[1]
    for name, weight in first[0].state_dict().items():
        assert torch.equal(weight, second[0].state_dict()[name]), name


ITEMS = 60
# Items 40 and above were never taken by anybody.
SEQUENCES = [
    np.random.default_rng(at).permutation(40)[: 2 + at % 7].astype(np.int64) for at in range(30)
]


EMBEDDINGS = F.normalize(torch.randn(ITEMS, 8, generator=torch.Generator().manual_seed(0)), dim=1)


def sampler(ordered: bool, sequences=SEQUENCES, **settings) -> _Sampler:
    chosen = ScorerSettings(**{"batch_size": 16, **settings})
    return _Sampler(of(sequences, ordered), EMBEDDINGS, chosen)


def batches(source: _Sampler, number: int = 0, seed: int = 0) -> list[_Batch]:
    return list(source.batches(number, torch.Generator().manual_seed(seed)))


def one_batch(source: _Sampler, seed: int = 0) -> _Batch:
    return batches(source, seed=seed)[0]


def epoch(source: _Sampler, number: int = 0) -> list[tuple[tuple[int, ...], int]]:
    """Every (history, target) of one epoch."""
    pairs = []
    for batch in batches(source, number):
        for history, mask, target in zip(batch.history, batch.mask, batch.target, strict=True):
            pairs.append((tuple(history[mask].tolist()), int(target)))
    return pairs


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100, 10_000])
def test_every_place_is_seen_once_in_an_epoch(batch_size):
    """In order of time: each item but the first, with all that came before it."""
    expected = Counter(
        (tuple(sequence[:at].tolist()), int(sequence[at]))
        for sequence in SEQUENCES
        for at in range(1, len(sequence))
    )
    source = sampler(ordered=True, batch_size=batch_size, max_steps=10_000)
    assert Counter(epoch(source)) == expected
    assert Counter(epoch(source, 1)) == expected
    assert epoch(source) != epoch(source, 1)


def test_epochs_that_are_a_part_go_through_all_places_together():
    """Six batches hold all the places: three epochs of two, and then again."""
    places = sum(len(sequence) - 1 for sequence in SEQUENCES)
    source = sampler(ordered=True, batch_size=-(-places // 6), epochs=6, max_steps=12)
    assert source.steps_per_epoch == 2
    whole = Counter(epoch(sampler(ordered=True, batch_size=places)))
    for first in (0, 3):
        parts = [Counter(epoch(source, number)) for number in range(first, first + 3)]
        assert parts[0] + parts[1] + parts[2] == whole
    assert epoch(source, 0) != epoch(source, 3)


def test_in_a_basket_everything_else_is_the_history():
    expected = Counter(
        (frozenset(sequence.tolist()) - {int(item)}, int(item))
        for sequence in SEQUENCES
        for item in sequence
    )
    pairs = epoch(sampler(ordered=False))
    assert Counter((frozenset(history), target) for history, target in pairs) == expected


def test_a_history_has_only_its_latest_items():
    pairs = epoch(sampler(ordered=True, max_history=2))
    expected = Counter(
        (tuple(sequence[max(0, at - 2) : at].tolist()), int(sequence[at]))
        for sequence in SEQUENCES
        for at in range(1, len(sequence))
    )
    assert Counter(pairs) == expected
    assert max(len(history) for history, _ in epoch(sampler(ordered=False, max_history=2))) == 2


def test_batches_are_of_like_size_and_bounded_in_all():
    source = sampler(ordered=True, batch_size=16)
    sizes = [len(batch.target) for batch in batches(source)]
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1
    assert sampler(ordered=True, batch_size=1, epochs=4, max_steps=20).steps_per_epoch == 5
    assert sampler(ordered=True, batch_size=1, epochs=40, max_steps=20).steps_per_epoch == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_what_nobody_took_is_never_a_negative(ordered):
    source = sampler(ordered)
    seen = set()
    for seed in range(20):
        batch = one_batch(source, seed)
        negatives = batch.negatives.tolist()
        assert negatives == sorted(set(negatives))
        assert set(batch.target.tolist()) <= set(negatives)
        assert torch.isfinite(batch.log_inclusion).all()
        assert (batch.log_inclusion <= 0).all()
        seen |= set(negatives)
    assert seen == {int(item) for sequence in SEQUENCES for item in sequence}


@pytest.mark.parametrize("ordered", [True, False])
def test_what_the_shopper_took_is_forbidden_as_a_negative(ordered):
    source = sampler(ordered)
    taken = {frozenset(sequence.tolist()) for sequence in SEQUENCES}
    for batch in batches(source)[:5]:
        negatives = set(batch.negatives.tolist())
        for row, target in enumerate(batch.target.tolist()):
            forbidden = frozenset(batch.negatives[batch.masked[row]].tolist())
            known = {target} | set(batch.history[row][batch.mask[row]].tolist())
            assert target in forbidden
            assert any(known <= w and forbidden == w & negatives for w in taken)


# Item 0 is the last of every sequence but ten, items 1 to 3 in many, the others in few.
SKEWED = [
    np.unique([0, 1 + at % 3, 4 + at % 17, 4 + (5 * at + 3) % 36])[::-1].copy() for at in range(60)
] + [np.array([4 + at, 20 + at], dtype=np.int64) for at in range(10)]


@pytest.mark.parametrize(
    ("ordered", "hard", "uniform", "batch_size"),
    [(True, 0, 6, 8), (False, 0, 6, 8), (True, 1, 3, 16), (False, 4, 2, 8), (False, 40, 1, 4)],
)
def test_the_corrected_partition_function_is_unbiased(
    monkeypatch, ordered, hard, uniform, batch_size
):
    """For one place, the mean of Σ exp(s - log π) over batches is Σ exp(s) over all items."""
    monkeypatch.setattr(siamese, "_UNIFORM_NEGATIVES", uniform)
    monkeypatch.setattr(siamese, "_HARD_AMONG", 5)
    source = sampler(ordered, SKEWED, hard_negatives=hard, batch_size=batch_size)
    # The last shopper took 13 and 29, so item 0 is one of the negatives.
    known = np.array(sorted({int(item) for sequence in SKEWED for item in sequence} - {13, 29}))
    factors = torch.randn(ITEMS, generator=torch.Generator().manual_seed(3)).exp().numpy()
    rng = np.random.default_rng(0)
    last = len(source._places) - 1
    inverse = np.zeros((1500, ITEMS))
    for draw in inverse:
        # Of the batches of an epoch, the one that has the last place.
        others = rng.choice(last, batch_size - 1, replace=False)
        batch = source._batch(np.append(others, last), rng)
        shown = ~batch.masked[-1]
        draw[batch.negatives[shown].numpy()] = (-batch.log_inclusion[-1, shown]).exp().numpy()
    sums = inverse @ factors
    error = sums.std() / len(sums) ** 0.5
    assert sums.mean() == pytest.approx(factors[known].sum(), abs=4 * error)
    # The most popular item as well as each rare one.
    errors = inverse.std(axis=0)[known] / len(inverse) ** 0.5
    assert (np.abs(inverse.mean(axis=0)[known] - 1) < 5 * errors + 1e-3).all()
    assert inverse[:, 0].max() < inverse[:, known].max() / 2


def test_an_item_that_every_batch_has_weighs_one():
    """Half of all targets are item 0; 256 uniform draws fall on 3 items."""
    sequences = [np.array([1, 0], dtype=np.int64), np.array([0, 2], dtype=np.int64)] * 8
    for hard in (0, 3):
        batch = one_batch(sampler(True, sequences, batch_size=8, hard_negatives=hard))
        assert batch.negatives.tolist() == [0, 1, 2]
        torch.testing.assert_close(batch.log_inclusion, torch.zeros(8, 3))


def test_hard_negatives_are_the_nearest_items_that_were_taken(monkeypatch):
    monkeypatch.setattr(siamese, "_UNIFORM_NEGATIVES", 0)
    monkeypatch.setattr(siamese, "_HARD_AMONG", 4)
    plain, hard = (sampler(True, hard_negatives=count) for count in (0, 2))
    cosines = (EMBEDDINGS @ EMBEDDINGS.T).numpy()
    taken = sorted({int(item) for sequence in SEQUENCES for item in sequence})
    seen = set()
    for without, batch in zip(batches(plain), batches(hard), strict=True):
        targets = set(batch.target.tolist())
        assert set(without.negatives.tolist()) == targets == set(without.target.tolist())
        near = set()
        for target in targets:
            others = sorted(set(taken) - {target}, key=lambda item: -cosines[target, item])
            near |= set(others[:4])
        added = set(batch.negatives.tolist()) - targets
        assert added <= near
        seen |= added
    assert len(seen) > 10


def test_padding_is_masked():
    batch = one_batch(sampler(ordered=True, batch_size=200))
    lengths = batch.mask.sum(dim=1)
    assert len(set(lengths.tolist())) > 1
    assert batch.history[~batch.mask].count_nonzero() == 0
    assert torch.equal(batch.mask, torch.arange(batch.mask.shape[1]) < lengths.unsqueeze(1))


def test_batches_follow_the_seed():
    first, again, other = (batches(sampler(ordered=False, max_history=2), 0, s) for s in (1, 1, 2))
    for name in ("history", "mask", "target", "negatives", "log_inclusion", "masked"):
        values = [[getattr(batch, name).tolist() for batch in drawn] for drawn in (first, again)]
        assert values[0] == values[1]
    for name in ("history", "negatives"):
        assert [getattr(b, name).tolist() for b in first] != [
            getattr(b, name).tolist() for b in other
        ]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("sequences", [[], [[3]], [[3, 3, 3], [4]]])
def test_nothing_to_tell_apart_is_refused(ordered, sequences):
    arrays = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    with pytest.raises(TrainingError, match="two different products"):
        sampler(ordered, arrays)
