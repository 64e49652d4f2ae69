"""Tasks made of a category's events, and adapting the scorer to one."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.methods.meta.event_tasks import (
    CategoryEvents,
    CategoryScorer,
    Events,
    EventTasks,
    JointEvents,
    category_events,
    event_loss,
    event_part,
    one_event_each,
    tilted_order,
)
from benchmarks.methods.meta.maml import Maml
from newshelf.catalog.interactions import Sequences
from newshelf.errors import TrainingError
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.training.loop import fit
from newshelf.training.run import Run

ITEMS, WIDTH = 60, 16
# Rows 0..39 are known, 40..59 are the new category.
INSIDE = np.arange(ITEMS) >= 40


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def events_of(sequences, times, max_history=3, inside=INSIDE) -> CategoryEvents:
    shoppers = Sequences(sequences, times)
    return category_events(shoppers, inside, ~inside, max_history=max_history)


def test_an_event_knows_what_came_before_and_elsewhere():
    events = events_of(
        [ints(1, 41, 2, 3, 2, 4, 45, 41), ints(50, 51), ints(7, 8)],
        [ints(1, 2, 3, 4, 5, 6, 6, 7), ints(1, 2), ints(1, 2)],
    )
    # The second shopper has no history elsewhere, the third took nothing of the category,
    # and the first took product 41 again.
    assert events.items.tolist() == list(range(40, 60))
    assert events.target.tolist() == [1, 5]
    assert events.shopper.tolist() == [0, 0]
    assert events.history[0].tolist() == [1, 0, 0]
    assert events.mask.tolist() == [[True, False, False], [True, True, True]]
    # Product 4 was taken in the same second; of the others, the latest time counts.
    assert events.history[1].tolist() == [1, 3, 2]
    assert np.flatnonzero(events.taken[0]).tolist() == [1, 5]


def test_only_the_latest_products_are_a_history():
    events = events_of([ints(*range(10), 44)], [np.arange(11)], max_history=4)
    assert events.history.tolist() == [[6, 7, 8, 9]]


def test_a_category_without_a_past_is_refused():
    for sequences in ([ints(50, 51)], [ints(1, 2)], []):
        with pytest.raises(TrainingError, match="no event of the category"):
            events_of(sequences, [np.arange(len(row)) for row in sequences])


@pytest.fixture
def embeddings() -> torch.Tensor:
    return F.normalize(torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.fixture
def events() -> CategoryEvents:
    rng = np.random.default_rng(0)
    rows = [
        np.concatenate([rng.permutation(40)[:4], 40 + rng.permutation(20)[:3]]) for _ in range(30)
    ]
    return events_of(rows, [np.arange(7)] * 30)


def scorer(dropout: float = 0.0) -> CategoryScorer:
    torch.manual_seed(0)
    spec = ScorerSpec(width=8, hidden=16, dropout=dropout)
    return CategoryScorer(SiameseScorer(spec, WIDTH, temperature=0.3))


@torch.no_grad()
def test_the_loss_equals_the_loop(embeddings, events):
    model = scorer()
    part = event_part(embeddings, events, np.arange(5), None)
    total = 0.0
    for at in range(5):
        history = embeddings[events.history[at][events.mask[at]]].unsqueeze(0)
        mask = torch.ones(1, history.shape[1], dtype=torch.bool)
        scores = model.scorer(history, mask, embeddings[40:].unsqueeze(0))[0]
        wanted = int(events.target[at])
        others = [c for c in range(20) if c == wanted or not events.taken[at, c]]
        total -= float(scores[wanted] - scores[others].logsumexp(dim=0))
    assert float(event_loss(model, part)) == pytest.approx(total / 5, rel=1e-4)


def test_a_task_has_one_event_of_each_shopper_and_all_their_products(embeddings, events):
    tasks = EventTasks(embeddings, [events], support=4, queries=6, candidates=12)
    support, queries = tasks.draw(0, np.random.default_rng(1))
    assert support.history.shape == (4, 3, WIDTH)
    assert queries.left_out.shape == (6, 12)
    assert torch.equal(support.candidates, queries.candidates)
    # No event leaves its own product out.
    for part in (support, queries):
        assert not part.left_out.gather(1, part.target.unsqueeze(1)).any()
    numbers = one_event_each(events, 10, np.random.default_rng(1))
    assert len(np.unique(events.shopper[numbers])) == 10
    for at, number in enumerate(numbers[:4]):
        asked = support.candidates[support.target[at]]
        assert torch.equal(asked, embeddings[40 + events.target[number]])


def test_a_tilted_order_equals_draws_by_weight_one_after_the_other():
    """The shares of first and second draws, beside those of a naive urn."""
    target, tilt, rounds = np.array([0, 0, 1, 2, 2, 2]), 1.5, 40_000
    seed = np.random.default_rng(0)
    weights = np.exp(tilt * np.random.default_rng(7).standard_normal(3))[target]
    counts, expected = np.zeros((6, 6)), np.zeros((6, 6))
    for first in range(6):
        for second in set(range(6)) - {first}:
            left = weights.sum() - weights[first]
            expected[first, second] = weights[first] / weights.sum() * weights[second] / left
    for _ in range(rounds):
        order = tilted_order(target, 3, tilt, _Fixed(seed))
        assert sorted(order) == list(range(6))
        counts[order[0], order[1]] += 1
    np.testing.assert_allclose(counts / rounds, expected, atol=0.008)


class _Fixed(np.random.Generator):
    """Draws the same weights of products each time, and goes on with other events."""

    def __init__(self, events: np.random.Generator) -> None:
        super().__init__(events.bit_generator)

    def standard_normal(self, size):
        return np.random.default_rng(7).standard_normal(size)


def test_a_tilted_task_favours_products_of_its_own(embeddings, events):
    """Support and queries the same ones; other tasks of the category others."""

    def agreement(tilt: float) -> tuple[float, float]:
        tasks = EventTasks(embeddings, [events], 10, 10, 20, tilt=tilt)
        rng = np.random.default_rng(0)
        shares = []
        for _ in range(200):
            parts = tasks.draw(0, rng)
            shares.append([_shares(part, embeddings[40:]) for part in parts])
        support, queries = np.array(shares).transpose(1, 0, 2)
        other = np.roll(queries, 1, axis=0)
        return float((support * queries).sum(1).mean()), float((support * other).sum(1).mean())

    within, between = agreement(2.0)
    plain_within, plain_between = agreement(0.0)
    assert within > 1.5 * between
    # Drawn without replacement, so what is in the support is a little rarer in the queries.
    assert plain_within < 1.1 * plain_between


def _shares(part: Events, products: torch.Tensor) -> np.ndarray:
    """``(20,)``: how large a part of the events each of the category's products has."""
    taken = part.candidates[part.target]
    same = (taken.unsqueeze(1) == products.unsqueeze(0)).all(dim=2)
    return same.float().mean(dim=0).numpy()


def test_the_generator_decides_the_tasks(embeddings, events):
    batches = EventTasks(embeddings, [events], 3, 3, 12).batches(tasks=2, steps=2)
    first, again, other = (batches(0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first[0][0].history.shape == (2, 3, 3, WIDTH)
    assert torch.equal(first[1][1].history, again[1][1].history)
    assert not torch.equal(first[1][1].history, other[1][1].history)


def test_too_few_shoppers_are_refused(events):
    with pytest.raises(TrainingError, match="the category has 30"):
        one_event_each(events, 31, np.random.default_rng(0))


def test_tasks_mapped_together_equal_one_after_the_other(embeddings, events):
    batch = EventTasks(embeddings, [events], 4, 6, 12).batches(tasks=3, steps=1)(
        0, torch.Generator().manual_seed(0)
    )[0]
    model = scorer()
    joint = JointEvents(model)(batch)["loss"].item()
    maml = Maml(model, event_loss, steps=2, rate=0.1)
    alone, plain = [], []
    for task in range(3):
        support, queries = (Events(*(tensor[task] for tensor in part)) for part in batch)
        adapted = maml.adapt(support)
        alone.append(float(event_loss(partial(maml.predict, adapted), queries)))
        plain += [float(event_loss(model, support))] * 4 + [float(event_loss(model, queries))] * 6
    assert float(maml(batch)["loss"]) == pytest.approx(np.mean(alone), rel=1e-4)
    assert joint == pytest.approx(np.mean(plain), rel=1e-4)


def opposite_categories() -> tuple[torch.Tensor, list[CategoryEvents]]:
    """In each category a taste goes with a direction of its own, seen in its events only."""
    rng = np.random.default_rng(0)
    shoppers, each, categories = 60, 16, 24
    known = rng.standard_normal((40, WIDTH))
    known[:20, 0], known[20:, 0] = 3.0, -3.0
    rows, found = [known], []
    total = 40 + categories * each
    for number in range(categories):
        items = rng.standard_normal((each, WIDTH))
        sign = rng.choice([-1, 1])
        items[: each // 2, 0], items[each // 2 :, 0] = 3.0 * sign, -3.0 * sign
        rows.append(items)
        start = 40 + number * each
        inside = np.zeros(total, dtype=bool)
        inside[start : start + each] = True
        past = np.arange(total) < 40
        sequences = []
        for shopper in range(shoppers):
            taste = shopper % 2
            history = taste * 20 + rng.permutation(20)[:3]
            # The first half of the category is for the first taste, wherever it points.
            liked = start + taste * each // 2 + rng.permutation(each // 2)[:1]
            sequences.append(np.concatenate([history, liked]))
        taken = Sequences(sequences, [np.arange(4)] * shoppers)
        found.append(category_events(taken, inside, past, max_history=3))
    embeddings = torch.tensor(np.concatenate(rows), dtype=torch.float32)
    return F.normalize(embeddings, dim=1), found


def test_maml_adapts_where_the_general_scorer_cannot_know():
    """Whether likes attract or repel differs by category: only its events can tell."""
    embeddings, found = opposite_categories()
    tasks = EventTasks(embeddings, found[:18], support=8, queries=8, candidates=16)

    def loss_after(meta: bool, steps: int) -> float:
        model = scorer()
        maml = Maml(model, event_loss, steps=2, rate=0.3)
        objective = maml if meta else JointEvents(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        batches = tasks.batches(tasks=6, steps=20)
        fit("scorer", objective, batches, optimizer, Run(0, quiet=True), epochs=5)
        asked = EventTasks(embeddings, found[18:], support=8, queries=8, candidates=16)
        losses = []
        for category in range(6):
            support, queries = asked.draw(category, np.random.default_rng(category))
            adapted = maml.adapt(support, steps)
            losses.append(float(event_loss(partial(maml.predict, adapted), queries)))
        return float(np.mean(losses))

    assert loss_after(meta=True, steps=2) < loss_after(meta=False, steps=2) - 0.1


def memorised_categories() -> tuple[torch.Tensor, list[CategoryEvents]]:
    """One product in each category is what nearly all take; its features do not tell."""
    rng = np.random.default_rng(0)
    shoppers, each, categories = 60, 16, 12
    total = 40 + categories * each
    embeddings = torch.tensor(rng.standard_normal((total, WIDTH)), dtype=torch.float32)
    past = np.arange(total) < 40
    found = []
    for number in range(categories):
        start = 40 + number * each
        inside = np.zeros(total, dtype=bool)
        inside[start : start + each] = True
        share = rng.permutation(np.exp(-0.8 * np.arange(each)))
        liked = rng.choice(each, size=shoppers, p=share / share.sum())
        sequences = [
            np.concatenate([rng.permutation(40)[:3], [start + product]]) for product in liked
        ]
        taken = Sequences(sequences, [np.arange(4)] * shoppers)
        found.append(category_events(taken, inside, past, max_history=3))
    return F.normalize(embeddings, dim=1), found


def test_tilted_tasks_learn_to_adapt_where_categories_were_memorised():
    """From a start that knows the learned categories, one step helps new ones more."""
    embeddings, found = memorised_categories()
    plain = EventTasks(embeddings, found[:6], support=8, queries=8, candidates=16)
    general = scorer()
    joint = JointEvents(general)
    optimizer = torch.optim.Adam(general.parameters(), lr=1e-2)
    run = Run(0, quiet=True)
    fit("general", joint, plain.batches(tasks=6, steps=30), optimizer, run, epochs=4)

    def meta_trained(tilt: float) -> tuple[float, float]:
        """The mean logarithm of the learned rates, and the loss in new categories."""
        maml = Maml(copy.deepcopy(general), event_loss, steps=1, rate=0.05, learn_rates=True)
        optimizer = torch.optim.Adam(maml.parameters(), lr=1e-2)
        batches = replace(plain, tilt=tilt).batches(tasks=6, steps=30)
        fit(f"maml-{tilt}", maml, batches, optimizer, run, epochs=4)
        asked = EventTasks(embeddings, found[6:], support=8, queries=8, candidates=16)
        losses = []
        for category in range(6):
            for draw in range(4):
                support, queries = asked.draw(category, np.random.default_rng(draw))
                adapted = maml.adapt(support)
                losses.append(float(event_loss(partial(maml.predict, adapted), queries)))
        return float(maml.log_rates.mean().detach()), float(np.mean(losses))

    rates, loss = meta_trained(2.0)
    plain_rates, plain_loss = meta_trained(0.0)
    assert rates > plain_rates
    assert loss < plain_loss - 0.1
