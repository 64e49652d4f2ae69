import numpy as np
import pytest
import torch

from newshelf.attributes.learn import (
    HeadPredictions,
    encoder_predictions,
    fit_temperature,
    head_facts,
)
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import AttributeInput, EncoderSpec, FusionSpec


def drawn(temperature: float, count: int = 4000):
    """Logits whose softmax at ``temperature`` is the truth that targets are drawn from."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(count, 4)) * 3
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    target = np.array([rng.choice(4, p=row) for row in p])
    return logits.astype(np.float32), target


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_targets_is_found(temperature):
    logits, target = drawn(temperature)
    assert fit_temperature(logits, target) == pytest.approx(temperature, rel=0.1)


def test_rows_without_a_target_do_not_count():
    logits, target = drawn(2.0)
    half = np.where(np.arange(len(target)) % 2 == 0, target, -1)
    assert fit_temperature(logits, half) == pytest.approx(
        fit_temperature(logits[::2], target[::2]), rel=1e-6
    )
    assert fit_temperature(logits, np.full(len(target), -1)) == 1.0


def reading(**changed) -> HeadPredictions:
    values = {
        "attribute": "color",
        "classes": ("green", "red"),
        "logits": np.array([[4, 0], [0, 0.1], [0, 5], [9, 0]], dtype=np.float32),
        "held_out": np.full(4, -1),
        "applies_to": np.array([True, True, True, False]),
        **changed,
    }
    return HeadPredictions(**values)


def test_what_the_head_is_sure_of_is_said():
    facts = list(head_facts(["a", "b", "c", "d"], reading(), min_confidence=0.6))
    assert [(fact.item_id, fact.value) for fact in facts] == [("a", "green"), ("c", "red")]
    assert facts[0].confidence == pytest.approx(1 / (1 + np.exp(-4)))
    assert {fact.source for fact in facts} == {"picture+text model"}


def test_a_reading_must_fit_together():
    for changed in (
        {"classes": ("green",)},
        {"held_out": np.full(3, -1)},
        {"applies_to": np.ones(3, dtype=bool)},
    ):
        with pytest.raises(ValueError, match="the head color"):
            reading(**changed)
    with pytest.raises(ValueError, match="not finite"):
        reading(logits=np.full((4, 2), np.nan, dtype=np.float32))


def test_the_encoders_heads_are_read():
    torch.manual_seed(0)
    spec = EncoderSpec(
        image=None,
        text=None,
        attributes=AttributeInput(buckets=8, width=4),
        fusion=FusionSpec(width=8, heads=2),
        embedding=8,
        labels={"target_type": ("Rings", "Lamps"), "color": ("green", "red", "blue")},
    )
    encoder = Encoder(spec).eval()
    embeddings = torch.randn(5, 8)
    kinds, colors = encoder_predictions(
        encoder,
        embeddings,
        {"color": torch.tensor([0, -1, 2, -1, 1])},
        {"target_type": torch.tensor([True, False, True, True, False])},
    )
    assert (kinds.attribute, colors.attribute) == ("product_type", "color")
    assert kinds.classes == ("Rings", "Lamps")
    expected = embeddings @ encoder.heads["color"].weight.T + encoder.heads["color"].bias
    np.testing.assert_allclose(colors.logits, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert colors.held_out.tolist() == [0, -1, 2, -1, 1]
    assert colors.applies_to.all()
    assert (kinds.held_out == -1).all()
    assert {fact.item_id for fact in head_facts(list("abcde"), kinds, 0.0)} == {"a", "c", "d"}
