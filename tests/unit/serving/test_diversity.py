import numpy as np
import pytest

from newshelf.serving.ranking import diversify


def naive(relevance, embeddings, k, diversity):
    """The formula of Carbonell & Goldstein, one item and one pair at a time."""
    low, high = min(relevance), max(relevance)
    chosen = [int(np.argmax(relevance))]
    while len(chosen) < min(k, len(relevance)):
        best, best_value = None, -np.inf
        for item in range(len(relevance)):
            if item in chosen:
                continue
            likest = max(float(embeddings[item] @ embeddings[other]) for other in chosen)
            stretched = (relevance[item] - low) / (high - low)
            value = (1 - diversity) * stretched - diversity * likest
            if value > best_value:
                best, best_value = item, value
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_it_is_what_the_naive_loop_chooses(unit_rows, diversity):
    for seed in range(4):
        embeddings = unit_rows(40, 12, seed)
        relevance = np.random.default_rng(seed).normal(size=40) * 10
        found = diversify(relevance, embeddings, 15, diversity)
        assert found.tolist() == naive(relevance, embeddings, 15, diversity)


def test_without_diversity_it_sorts(unit_rows):
    relevance = np.array([3.0, 9.0, 5.0, 1.0])
    assert diversify(relevance, unit_rows(4, 8), 4, 0.0).tolist() == [1, 2, 0, 3]


def test_it_avoids_repeating_an_item():
    twins = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    relevance = np.array([1.0, 0.9, 0.5])
    assert diversify(relevance, twins, 2, 0.0).tolist() == [0, 1]
    assert diversify(relevance, twins, 2, 0.5).tolist() == [0, 2]


@pytest.mark.parametrize(("count", "k", "chosen"), [(0, 5, 0), (3, 5, 3), (3, 2, 2), (1, 1, 1)])
def test_it_chooses_no_more_than_there_are(unit_rows, count, k, chosen):
    found = diversify(np.ones(count), unit_rows(count, 4), k, 0.3)
    assert len(found) == chosen == len(set(found.tolist()))
