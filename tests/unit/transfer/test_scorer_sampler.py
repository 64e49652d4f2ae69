"""Which histories, targets and negatives the scorer is shown."""

from collections import Counter

import numpy as np
import pytest
import torch

from newshelf.config import ScorerSettings
from newshelf.errors import TrainingError
from newshelf.transfer.siamese import _Sampler

ITEMS = 60
# Items 40 and above were never taken by anybody.
SEQUENCES = [
    np.random.default_rng(at).permutation(40)[: 2 + at % 7].astype(np.int64) for at in range(30)
]


def sampler(ordered: bool, sequences=SEQUENCES, seed: int = 0, **settings) -> _Sampler:
    chosen = ScorerSettings(**{"batch_size": 16, **settings})
    return _Sampler(sequences, ITEMS, ordered, chosen, seed)


def epoch(source: _Sampler) -> list[tuple[tuple[int, ...], int]]:
    """Every (history, target) of one epoch."""
    pairs = []
    for _ in range(source.steps_per_epoch):
        batch = source.batch()
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
    assert Counter(epoch(source)) == expected


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
    sizes = [len(source.batch().target) for _ in range(source.steps_per_epoch)]
    assert max(sizes) <= 16
    assert max(sizes) - min(sizes) <= 1
    assert sampler(ordered=True, batch_size=1, epochs=4, max_steps=20).steps_per_epoch == 5
    assert sampler(ordered=True, batch_size=1, epochs=40, max_steps=20).steps_per_epoch == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_what_nobody_took_is_never_a_negative(ordered):
    source = sampler(ordered)
    seen = set()
    for _ in range(20):
        batch = source.batch()
        negatives = batch.negatives.tolist()
        assert negatives == sorted(set(negatives))
        assert set(batch.target.tolist()) <= set(negatives)
        assert torch.isfinite(batch.log_q).all()
        seen |= set(negatives)
    assert seen == {int(item) for sequence in SEQUENCES for item in sequence}


@pytest.mark.parametrize("ordered", [True, False])
def test_what_the_shopper_took_is_forbidden_as_a_negative(ordered):
    source = sampler(ordered)
    taken = {frozenset(sequence.tolist()) for sequence in SEQUENCES}
    for _ in range(5):
        batch = source.batch()
        negatives = set(batch.negatives.tolist())
        for row, target in enumerate(batch.target.tolist()):
            forbidden = frozenset(batch.negatives[batch.forbidden[row]].tolist())
            known = {target} | set(batch.history[row][batch.mask[row]].tolist())
            assert target in forbidden
            assert any(known <= w and forbidden == w & negatives for w in taken)


def test_the_correction_is_how_many_of_an_item_are_expected():
    """Half of all interactions are with item 0; 256 uniform draws fall on 3 items."""
    sequences = [np.array([0, 1], dtype=np.int64), np.array([2, 0], dtype=np.int64)] * 8
    source = sampler(True, sequences, batch_size=8)
    batch = source.batch()
    assert batch.negatives.tolist() == [0, 1, 2]
    expected = [8 / 2 + 256 / 3, 8 / 4 + 256 / 3, 8 / 4 + 256 / 3]
    torch.testing.assert_close(batch.log_q.exp(), torch.tensor(expected))


def test_padding_is_masked():
    batch = sampler(ordered=True, batch_size=200).batch()
    lengths = batch.mask.sum(dim=1)
    assert len(set(lengths.tolist())) > 1
    assert batch.history[~batch.mask].count_nonzero() == 0
    assert torch.equal(batch.mask, torch.arange(batch.mask.shape[1]) < lengths.unsqueeze(1))


def test_batches_follow_the_seed():
    first, again, other = (epoch(sampler(ordered=True, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("sequences", [[], [[3]], [[3, 3, 3], [4]]])
def test_nothing_to_tell_apart_is_refused(ordered, sequences):
    arrays = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    with pytest.raises(TrainingError, match="two different products"):
        sampler(ordered, arrays)
