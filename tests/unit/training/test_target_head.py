"""The target's head learns from few labels, by the method that wins."""

import pytest
import torch

from newshelf.config import FinetuneSettings, Settings, TrainingSettings
from newshelf.training.finetune import train_target_head, warm_start
from newshelf.training.labels import HeadLabels
from newshelf.training.run import Run
from tests.unit.training.synthetic import IMAGE, TEXT, clusters, encoder_of, table_of

ROWS = 400
KINDS = ("a", "b", "c", "d")


@pytest.fixture
def run(said) -> Run:
    return Run(seed=3, console=said.console)


@pytest.fixture
def world():
    """Pictures show the type; the last 160 rows are the target."""
    torch.manual_seed(0)
    kind = torch.arange(ROWS) % 4
    table = table_of(clusters(kind, IMAGE, 0.7, 1), clusters(kind * 0, TEXT, 0.7, 2))
    source = torch.arange(ROWS) < 240
    labels = {
        "source_type": HeadLabels(KINDS, kind.masked_fill(~source, -1)),
        "target_type": HeadLabels(KINDS, kind.masked_fill(source, -1)),
    }
    encoder = encoder_of({"source_type": KINDS, "target_type": KINDS})
    warm_start(encoder, table)
    return encoder, table, labels


def weights(encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def changed(before: dict[str, torch.Tensor], encoder) -> set[str]:
    after = encoder.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def settings(few_shot: str, shots: int = 10) -> Settings:
    return Settings(
        finetune=FinetuneSettings(target_shots=shots), training=TrainingSettings(few_shot=few_shot)
    )


@pytest.mark.parametrize("few_shot", ["probe", "whitened", "auto"])
def test_the_targets_head_learns_from_few_and_changes_nothing_else(world, run, few_shot):
    encoder, table, labels = world
    before = weights(encoder)
    result, choices = train_target_head(encoder, table, labels, settings(few_shot), run)
    assert changed(before, encoder) == {"heads.target_type.weight", "heads.target_type.bias"}
    assert result.accuracy["target_type"] > 0.7
    # A quarter of each class of 40.
    assert result.tested == {"target_type": 40}
    assert [choice.job for choice in choices] == ["few_shot"] * (few_shot == "auto")


def test_too_few_labels_to_validate_take_the_simple_way(world, run, said):
    encoder, table, labels = world
    _, choices = train_target_head(encoder, table, labels, settings("auto", shots=1), run)
    assert choices[0].name == "probe"
    assert "too few to validate" in said.text
