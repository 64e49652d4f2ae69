"""Heads that are adapted to products that state nothing."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from newshelf.config import TrainingSettings
from newshelf.training import adaptation
from newshelf.training.adaptation import AdaptSettings, adapt, adapt_heads
from newshelf.training.finetune import embed, warm_start
from newshelf.training.labels import HeadLabels
from newshelf.training.run import Run
from tests.unit.training.synthetic import IMAGE, TEXT, blobs, encoder_of, table_of


@pytest.fixture
def run(said) -> Run:
    return Run(seed=3, console=said.console)


def weights(encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def changed(before: dict[str, torch.Tensor], encoder) -> set[str]:
    after = encoder.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


BLOBS = ("a", "b", "c")
SMALL = AdaptSettings(bottleneck=16, batch_size=32, steps=10, epochs=10)


def shop(angle: float):
    """300 products with a type, and 300 without that are turned by ``angle``; the true types."""
    parts = [blobs(300, 0.0, seed=0), blobs(300, math.radians(angle), seed=1)]
    image = F.pad(torch.cat([rows for rows, _ in parts]), (0, IMAGE - 8))
    truth = torch.cat([kinds for _, kinds in parts])
    stated = torch.arange(600) < 300
    table = table_of(image, torch.zeros(600, TEXT), columns={"product_type": stated.long() * 5})
    encoder = encoder_of({"source_type": BLOBS}, text=False)
    warm_start(encoder, table)
    labels = {"source_type": HeadLabels(BLOBS, truth.masked_fill(~stated, -1))}
    return encoder, table, labels, truth


def right(encoder, table, truth) -> float:
    """Share of right types among the pictures of products that state none."""
    predicted = encoder.heads["source_type"](embed(encoder, table)).argmax(dim=1)
    asked = (torch.arange(600) >= 300) & table.image_present
    return float((predicted == truth)[asked].float().mean())


def test_a_head_learns_from_products_that_state_nothing(run, monkeypatch):
    monkeypatch.setattr(adaptation, "adapt", partial(adapt, settings=SMALL))
    encoder, table, labels, truth = shop(50)
    found = {}
    for method in ("adabn", "mcc"):
        before = weights(encoder)
        results, choices = adapt_heads(
            encoder, table, labels, TrainingSettings(adaptation=method), run
        )
        assert changed(before, encoder) <= {"heads.source_type.weight", "heads.source_type.bias"}
        assert (len(results), choices) == (1, [])
        assert results[0].accuracy["source_type"] > 0.8
        found[method] = right(encoder, table, truth)
    assert found["mcc"] > found["adabn"] + 0.02


def test_auto_validates_without_a_label_of_the_others(run, monkeypatch):
    monkeypatch.setattr(adaptation, "adapt", partial(adapt, settings=replace(SMALL, epochs=1)))
    encoder, table, labels, _ = shop(50)
    table.image[300:, 8:] += 0.5
    _, choices = adapt_heads(encoder, table, labels, TrainingSettings(), run)
    assert [choice.job for choice in choices] == ["adaptation of source_type"]
    assert [row["name"] for row in choices[0].table] == ["none", "adabn", "mcc"]
    assert all("problem" not in row for row in choices[0].table)


@pytest.mark.parametrize("training", [TrainingSettings(), TrainingSettings(adaptation="none")])
def test_products_that_look_alike_are_not_adapted_to(run, training):
    encoder, table, labels, _ = shop(0)
    before = weights(encoder)
    assert adapt_heads(encoder, table, labels, training, run) == ([], [])
    assert not changed(before, encoder)


def test_a_few_products_without_a_type_change_nothing(run):
    encoder, table, labels, _ = shop(50)
    table.attributes[330:, 1] = 5
    training = TrainingSettings(adaptation="mcc")
    assert adapt_heads(encoder, table, labels, training, run) == ([], [])
