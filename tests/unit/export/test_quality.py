import numpy as np
import pytest

from export.quality import Quality, failures, measure_quality

RNG = np.random.default_rng(2)
EMBEDDING = RNG.standard_normal((40, 16)).astype(np.float32)
EMBEDDING /= np.linalg.norm(EMBEDDING, axis=1, keepdims=True)
LOGITS = RNG.standard_normal((40, 3)).astype(np.float32)
LABELS = {"color": LOGITS.argmax(axis=1)}
REFERENCE = {"embedding": EMBEDDING, "color_logits": LOGITS}


def moved(share: float, scale: float = 1.0) -> dict[str, np.ndarray]:
    """The reference with the first ``share`` of its embeddings turned."""
    rows = EMBEDDING.copy()
    count = round(share * len(rows))
    rows[:count] += scale * RNG.standard_normal((count, 16))
    return {**REFERENCE, "embedding": rows / np.linalg.norm(rows, axis=1, keepdims=True)}


def test_the_same_outputs_pass():
    quality = measure_quality("products", REFERENCE, REFERENCE, LABELS)
    assert quality.cosine_mean == pytest.approx(1)
    assert (quality.overlap, quality.accuracy_drop, quality.labels) == (1, 0, 40)
    assert failures(quality) == []


def test_overlap_is_what_a_naive_loop_counts():
    candidate = moved(1.0, 0.2)
    shared = []
    for row in range(40):
        others = [at for at in range(40) if at != row]
        nearest = [
            set(sorted(others, key=lambda at: -float(query[row] @ EMBEDDING[at]))[:10])
            for query in (EMBEDDING, candidate["embedding"])
        ]
        shared.append(len(nearest[0] & nearest[1]) / 10)
    quality = measure_quality("products", REFERENCE, candidate, LABELS)
    assert quality.overlap == pytest.approx(np.mean(shared))
    assert 0.3 < quality.overlap < 1


def test_a_tenth_of_bad_products_is_not_hidden_by_the_mean():
    rows = EMBEDDING.copy()
    # Cosine 0.95 for four of forty: the mean stays at 0.995.
    for row in range(4):
        other = RNG.standard_normal(16)
        other -= (other @ rows[row]) * rows[row]
        rows[row] = 0.95 * rows[row] + np.sqrt(1 - 0.95**2) * other / np.linalg.norm(other)
    quality = measure_quality("texts", REFERENCE, {**REFERENCE, "embedding": rows}, LABELS)
    assert quality.cosine_mean > 0.99
    reasons = failures(quality)
    assert any(reason.startswith("texts: cosine 0.95") for reason in reasons)
    assert any("5th percentile" in reason for reason in reasons)


def test_labels_that_are_no_longer_right_are_refused_and_unknown_ones_do_not_count():
    logits = LOGITS.copy()
    logits[:2] = -logits[:2]
    labels = {"color": np.where(np.arange(40) < 20, LABELS["color"], -1)}
    quality = measure_quality("products", REFERENCE, {**REFERENCE, "color_logits": logits}, labels)
    assert quality.labels == 20
    assert quality.accuracy_drop == pytest.approx(10)
    [failure] = failures(quality)
    assert failure.startswith("products: 10.0 points")


def test_numbers_that_are_none_are_refused():
    rows = EMBEDDING.copy()
    rows[0] = np.nan
    quality = measure_quality("products", REFERENCE, {**REFERENCE, "embedding": rows}, {})
    assert quality.cosine_min == -1
    assert quality.accuracy_drop is None
    assert failures(quality)
    nothing = Quality("products", 1, float("nan"), float("nan"), 1, float("nan"), None, 0)
    assert len(failures(nothing)) == 3


def test_with_two_products_there_are_no_neighbours_to_lose():
    few = {name: values[:2] for name, values in REFERENCE.items()}
    assert measure_quality("products", few, few, {}).overlap is None
