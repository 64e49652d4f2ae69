"""Scorer and signals together, in a world where it is known what is taken."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.catalog.interactions import Sequences
from newshelf.config import BlendSettings, ScorerSettings
from newshelf.errors import TrainingError
from newshelf.training import ranking as module
from newshelf.training.ranking import BlendRanker, Ranking, train_ranking
from newshelf.training.run import Run

ITEMS, NEW, GROUPS, SIZE = 120, 20, 12, 10
SETTINGS = ScorerSettings(
    width=8, epochs=2, max_steps=60, batch_size=64, blend=BlendSettings(links_per_item=60)
)
DAY = 86_400


def world() -> tuple[Tensor, list[np.ndarray]]:
    """Looks say which of twelve kinds an item is; what goes together is another matter.

    The items of kind 2n are taken with those of kind 2n + 1 that have the same number: a
    pair that no picture shows. The last twenty items, the two last kinds, are taken by
    nobody; they look like kinds 0 and 1.
    """
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((GROUPS, 24))
    kind = np.arange(ITEMS) // SIZE
    kind[kind >= GROUPS - 2] -= GROUPS - 2
    looks = centres[kind] + 0.25 * rng.standard_normal((ITEMS, 24))
    embeddings = F.normalize(torch.tensor(looks, dtype=torch.float32), dim=1)
    baskets = []
    for _ in range(500):
        pair = int(rng.integers(0, (GROUPS - 2) // 2))
        numbers = rng.choice(SIZE, 2, replace=False)
        one = 2 * pair * SIZE + numbers
        baskets.append(rng.permutation(np.concatenate([one, one + SIZE])).astype(np.int64))
    return embeddings, baskets


EMBEDDINGS, BASKETS = world()


def stamped(baskets: list[np.ndarray], step: int) -> list[np.ndarray]:
    return [DAY * at + step * np.arange(len(basket)) for at, basket in enumerate(baskets)]


def trained(said, *, baskets=BASKETS, timestamps=None, settings=SETTINGS, **run) -> Ranking:
    return train_ranking(
        EMBEDDINGS,
        Sequences(baskets, timestamps),
        settings,
        Run(**{"seed": 1, "console": said.console, **run}),
    )


@pytest.fixture(scope="module")
def blended() -> Ranking:
    return train_ranking(EMBEDDINGS, Sequences(BASKETS), SETTINGS, Run(1, quiet=True))


def partner_found(ranker: BlendRanker) -> float:
    """How often an item's partner is among the first three of all others."""
    known = ITEMS - NEW
    asked = [np.array([item]) for item in range(known)]
    scores = ranker.scores(asked)
    scores[np.arange(known), np.arange(known)] = -np.inf
    first = np.argsort(-scores, axis=1)[:, :3]
    partner = [item + SIZE if item // SIZE % 2 == 0 else item - SIZE for item in range(known)]
    return float(np.mean([right in row for right, row in zip(partner, first, strict=True)]))


def new_above_strangers(ranker: BlendRanker) -> float:
    """For who took kind 0: how often a new item like kind 1 is above one of kinds 2 … 9."""
    scores = ranker.scores([np.array([item, item + 1]) for item in range(SIZE - 1)])
    new, strangers = scores[:, ITEMS - SIZE :], scores[:, 2 * SIZE : ITEMS - NEW]
    return float((new[:, :, None] > strangers[:, None, :]).mean())


def test_the_blend_knows_what_no_picture_shows(blended):
    alone = BlendRanker(Ranking(blended.scorer, None, []), EMBEDDINGS)
    both = BlendRanker(blended, EMBEDDINGS)
    assert partner_found(both) > 0.9
    assert partner_found(both) > partner_found(alone) + 0.3


def test_new_items_are_still_found(blended):
    assert new_above_strangers(BlendRanker(blended, EMBEDDINGS)) > 0.9


def test_scores_are_log_odds(blended):
    """Over the baskets, as many are taken as the probabilities say."""
    histories = [np.delete(basket, place) for basket in BASKETS[:150] for place in range(4)]
    taken = [basket[place] for basket in BASKETS[:150] for place in range(4)]
    scores = BlendRanker(blended, EMBEDDINGS).scores(histories)
    said = 1 / (1 + np.exp(-scores.astype(float)))
    for row, history in enumerate(histories):
        said[row, history] = 0
    assert said.sum(axis=1).mean() == pytest.approx(1, abs=0.3)
    assert said[np.arange(len(taken)), taken].mean() > 0.2


def test_without_the_blend_the_scorer_ranks_alone(said, blended):
    off = SETTINGS.model_copy(update={"blend": BlendSettings(enabled=False)})
    found = trained(said, settings=off)
    assert found.blend is None
    # The phase before does not touch what the scorer learns.
    for name, value in found.scorer.state_dict().items():
        assert torch.equal(value, blended.scorer.state_dict()[name])
    histories = [np.array([1, 2]), np.array([30])]
    expected = module.score_all(found.scorer, EMBEDDINGS, histories)
    np.testing.assert_array_equal(BlendRanker(found, EMBEDDINGS).scores(histories), expected)


def test_too_few_cases_are_told_and_the_scorer_ranks_alone(said):
    found = trained(said, baskets=BASKETS[:12])
    assert found.blend is None
    assert "too few to weigh signals on" in said.text
    assert "the scorer ranks alone" in said.text


@pytest.mark.parametrize("timestamps", [None, []])
@pytest.mark.parametrize("baskets", [[], [np.array([3])]])
def test_nothing_to_tell_apart_is_refused(said, baskets, timestamps):
    stamps = None if timestamps is None else [np.zeros(len(b), dtype=np.int64) for b in baskets]
    with pytest.raises(TrainingError, match="two different products"):
        trained(said, baskets=baskets, timestamps=stamps)


def told_of(monkeypatch) -> dict[str, list]:
    """What the loops were given, by their name."""
    given = {}

    def note(_embeddings, data, *_others, name="scorer", **_more):
        sequences = [sequence.tolist() for sequence in data.sequences]
        given[name] = [data.timestamps is not None, sequences]
        raise InterruptedError

    monkeypatch.setattr(module, "train_scorer", note)
    return given


def test_shoppers_who_came_once_are_read_as_baskets(said, monkeypatch):
    """Who looks at a thing twice on one visit has it in the basket once."""
    given = told_of(monkeypatch)
    twice = [np.concatenate([basket, basket[:1]]) for basket in BASKETS]
    off = SETTINGS.model_copy(update={"blend": BlendSettings(enabled=False)})
    with pytest.raises(InterruptedError):
        trained(said, baskets=twice, timestamps=stamped(twice, 0), settings=off)
    baskets = [[*basket[1:].tolist(), int(basket[0])] for basket in BASKETS]
    assert given["scorer"] == [False, baskets]


def test_shoppers_who_came_back_keep_their_order(said, monkeypatch):
    given = told_of(monkeypatch)
    # Less than half of them came once only.
    stamps = stamped(BASKETS[:300], DAY) + stamped(BASKETS[300:], 0)
    off = SETTINGS.model_copy(update={"blend": BlendSettings(enabled=False)})
    with pytest.raises(InterruptedError):
        trained(said, timestamps=stamps, settings=off)
    assert given["scorer"] == [True, [basket.tolist() for basket in BASKETS]]


def test_with_time_recent_popularity_is_weighed(said):
    stamps = [30 * DAY * np.arange(len(basket)) + at for at, basket in enumerate(BASKETS)]
    blend = trained(said, timestamps=stamps).blend
    assert blend is not None
    assert np.isfinite(blend.prior).all()
    # All that does not depend on the history is in the prior; its weights are not kept.
    assert set(blend.spec.weights) == {"siamese", "content", "direct", "similar", "likewise"}


def weights_of(ranking: Ranking) -> list[np.ndarray]:
    tensors = [value.numpy() for value in ranking.scorer.state_dict().values()]
    assert ranking.blend is not None
    return [
        *tensors,
        *ranking.blend.arrays().values(),
        np.array([*ranking.blend.spec.weights.values()]),
    ]


def same(first: Ranking, second: Ranking) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(weights_of(first), weights_of(second), strict=True)
    )


def test_the_seed_decides_all(said, blended):
    assert same(trained(said), blended)
    other = trained(said, seed=2)
    assert other.blend.spec.weights != blended.blend.spec.weights


def test_a_training_that_was_killed_ends_with_the_same_weights(
    said, blended, tmp_path, monkeypatch
):
    """Killed in the second loop's second epoch, after the weights were fitted."""
    saved = Run.save
    times = []

    def save_and_die(run, name, progress):
        saved(run, name, progress)
        times.append(name)
        if times.count("scorer") == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        trained(said, state=tmp_path, identity="one")
    assert times == ["scorer-held", "scorer"]
    monkeypatch.setattr(Run, "save", saved)
    assert same(trained(said, state=tmp_path, identity="one"), blended)
    assert "after epoch 1 of 2" in said.text
