import numpy as np

from newshelf.evaluation.classification import few_shot


def blobs(noise):
    """Three classes of 20, 20 and 7 items around orthogonal directions."""
    labels = ["ring"] * 20 + ["lamp"] * 20 + ["hat"] * 7
    centres = {"ring": 0, "lamp": 1, "hat": 2}
    rows = np.eye(8, dtype=np.float32)[[centres[label] for label in labels]]
    return labels, rows + noise * np.random.default_rng(1).normal(size=rows.shape).astype("f4")


def test_better_features_need_fewer_shots():
    labels, clear = blobs(0.1)
    _, vague = blobs(1.5)
    found = few_shot({"clear": clear, "vague": vague}, labels, shots=(1, 5, 99))
    assert found.shots == (1, 5)  # no class has 99 left
    assert found.classes == ("hat", "lamp", "ring")
    assert found.tested == 10 + 10 + 3
    assert found.means("clear")[1] == 1.0
    assert found.means("vague")[0] < 0.8
    assert found.accuracy["clear"].shape == found.macro_f1["vague"].shape == (2, 3)
    assert found.confusion["clear"].sum() == 23


def test_tested_items_are_never_learned_from():
    # Labels without a reason: only who learns from what is tested can be right.
    found = few_shot({"identity": np.eye(40, dtype=np.float32)}, ["x", "y"] * 20, shots=(99,))
    assert found.shots == (10,)  # all that is left
    assert found.means("identity")[0] < 0.8


def test_the_same_seed_draws_the_same():
    labels, rows = blobs(1.0)
    first, again = (few_shot({"a": rows}, labels, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.accuracy["a"], again.accuracy["a"])


def test_one_class_or_classes_of_a_few_items_cannot_be_probed():
    rows = np.eye(20, dtype=np.float32)
    assert few_shot({"a": rows}, ["x"] * 20) is None
    assert few_shot({"a": rows}, ["x"] * 15 + ["y"] * 5) is None
    assert few_shot({"a": rows}, ["x"] * 10 + [None] * 10) is None
