"""Golden products: an archive that answers otherwise where it is loaded is refused."""

import itertools
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from newshelf.errors import SetupError
from newshelf.serving.encoder_predictor import load_encoder_predictor, open_encoder
from newshelf.serving.golden import check_golden_embeddings, write_golden
from newshelf.serving.recommender_predictor import load_recommender_predictor
from newshelf.serving.runtimes.base import Device
from tests.served_model import save_graphs


@pytest.fixture
def moved(bundle, tmp_path):
    """The archive on another machine."""
    folder = tmp_path / "moved"
    shutil.copytree(bundle, folder)
    return folder


def change(folder, key, value):
    golden = json.loads((folder / "golden.json").read_text())
    (folder / "golden.json").write_text(json.dumps({**golden, key: value(golden[key])}))


def test_equal_answers_are_accepted(moved, settings):
    load_encoder_predictor(moved, settings=settings)
    load_recommender_predictor(moved, settings=settings)


@pytest.mark.parametrize("load", [load_encoder_predictor, load_recommender_predictor])
def test_an_encoder_that_computes_otherwise_is_refused(
    moved, settings, encoder, scorer, spec, load
):
    """As a processor does on which 8-bit weights overflow."""
    broken = type(encoder)(spec.encoder).eval()
    broken.load_state_dict(
        {name: value + 0.05 * torch.randn(value.shape) if value.is_floating_point() else value
         for name, value in encoder.state_dict().items()}
    )  # fmt: skip
    save_graphs(moved, broken, scorer)
    with pytest.raises(SetupError) as caught:
        load(moved, settings=settings)
    for part in ("torchscript", "fp32", "mean cosine of", "0.999", "Export"):
        assert part in caught.value.message


def test_the_error_names_the_processor(moved, settings):
    change(moved, "embeddings", lambda rows: [[-value for value in row] for row in rows])
    with pytest.raises(SetupError) as caught:
        load_encoder_predictor(moved, settings=settings)
    with Path("/proc/cpuinfo").open() as file:
        names = {line.partition(":")[2].strip() for line in file if line.startswith("model name")}
    assert not names or any(name in caught.value.message for name in names)
    assert "-1.0000" in caught.value.message


@pytest.mark.parametrize(("angle", "accepted"), [(0.1, True), (0.2, False)])
def test_int8_may_differ_by_as_much_as_the_export_allows(moved, settings, spec, angle, accepted):
    """cos .1 = .995 and cos .2 = .980; .985 is needed."""

    def turned(rows):
        rows = np.array(rows)
        across = np.roll(rows, 1, axis=1)
        across -= (across * rows).sum(axis=1, keepdims=True) * rows
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        return (np.cos(angle) * rows + np.sin(angle) * across).tolist()

    change(moved, "embeddings", turned)
    served = open_encoder(moved, spec, Device(), settings)
    int8 = settings.model_copy(update={"precision": "int8"})
    if accepted:
        check_golden_embeddings(moved, served, int8, Device())
    else:
        with pytest.raises(SetupError, match="int8"):
            check_golden_embeddings(moved, served, int8, Device())


@pytest.mark.parametrize("score", [0.5, float("nan")])
def test_a_scorer_that_computes_otherwise_is_refused(moved, settings, score):
    change(moved, "scores", lambda scores: [value + score for value in scores])
    load_encoder_predictor(moved, settings=settings)
    with pytest.raises(SetupError, match="golden scores differ"):
        load_recommender_predictor(moved, settings=settings)


def test_a_slow_machine_loads_all_the_same(moved, settings, monkeypatch):
    """Each look at the clock is a minute later: no request of a client would be answered."""
    clock = itertools.count(time.monotonic() + 1000, 60.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    load_encoder_predictor(moved, settings=settings)
    load_recommender_predictor(moved, settings=settings)


def test_scores_that_are_missing_are_an_error(moved, settings):
    change(moved, "scores", lambda _: None)
    with pytest.raises(SetupError, match="no scores"):
        load_recommender_predictor(moved, settings=settings)


@pytest.mark.parametrize("text", [None, "", "{}", '{"requests": 1}'])
def test_an_archive_without_them_is_refused(moved, settings, text):
    (moved / "golden.json").unlink()
    if text is not None:
        (moved / "golden.json").write_text(text)
    with pytest.raises(SetupError, match=r"golden\.json is missing or damaged"):
        load_encoder_predictor(moved, settings=settings)


def test_products_that_cannot_be_encoded_are_left_out(moved, settings, spec):
    served = open_encoder(moved, spec, Device(), settings)
    damaged = {"image": "bm90IGEgcGljdHVyZQ=="}
    write_golden(moved, [damaged, {"title": "a gold ring"}], served, None)
    assert json.loads((moved / "golden.json").read_text())["requests"] == [{"title": "a gold ring"}]
    with pytest.raises(SetupError, match="no product"):
        write_golden(moved, [damaged], served, None)
