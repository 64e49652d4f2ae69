"""``ProductEncoder`` around a graph that is only arithmetic."""

import pytest
import torch

from newshelf.catalog.schema import Product
from newshelf.errors import BadPicture, InvalidField, NewshelfError
from newshelf.nn.inputs import Tokenizer
from newshelf.serving.decode import PictureDecoder
from newshelf.serving.encode import Encoding, ProductEncoder
from newshelf.serving.limits import Limits
from newshelf.serving.observe import Stages
from newshelf.serving.preprocess import InputBuilder
from newshelf.serving.products import ProductInput

CPU = torch.device("cpu")


class Counting:
    """Embeds each row as (mean of its picture, its first word, 1, …), and counts its runs."""

    device = CPU

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[int] = []
        self.poison = poison

    def run(self, inputs):
        batch = len(inputs["attributes"])
        self.batches.append(batch)
        embedding = torch.ones(batch + 1, 512)
        embedding[inputs["image_row"], 0] = inputs["image"].mean(dim=(1, 2, 3))
        embedding[inputs["text_row"], 1] = inputs["input_ids"][:, :2][:, -1].float()
        if self.poison is not None:
            embedding[self.poison] = float("nan")
        logits = torch.tensor([[0.0, 2.0]]).repeat(batch, 1)
        return {
            "embedding": embedding[:batch],
            "color_logits": logits,
            "material_logits": torch.tensor([[5.0, 0.0, 0.0]]).repeat(batch, 1),
        }


@pytest.fixture
def build(spec, bundle):
    def make(runtime, step=64, **changed):
        changed_spec = spec.encoder.model_copy(update=changed)
        text = changed_spec.text
        tokenizer = Tokenizer(bundle / "tokenizer.json", 16, 0) if text else None
        builder = InputBuilder(changed_spec, tokenizer, CPU)
        return ProductEncoder(changed_spec, runtime, builder, PictureDecoder(Limits(), 2), step)

    return make


def given(title=None, picture=None, at="") -> ProductInput:
    return ProductInput(Product(title=title), picture, at)


def test_labels_are_the_likeliest_classes_with_probabilities(build):
    [result] = build(Counting()).encode([given("ring")], Stages())
    assert result.labels["color"] == ("red", pytest.approx(0.880797, abs=1e-6))
    assert result.labels["material"][0] == "jade"


@pytest.mark.parametrize(("step", "batches"), [(64, [5]), (2, [2, 2, 1]), (5, [5])])
def test_products_go_through_in_turns(build, step, batches):
    runtime = Counting()
    words = ["jade", "gold", "linen", "ring", "shirt"]
    results = build(runtime, step).encode([given(word) for word in words], Stages())
    assert runtime.batches == batches
    assert [result.embedding[1] for result in results] == [4, 5, 6, 7, 8]


def test_failed_products_leave_no_gap(build, picture):
    runtime = Counting()
    inputs = [
        given("jade"),
        given(picture=b"damaged", at="instances[1]"),
        given("gold", picture()),
        given("ring", b""),
        given(picture=picture(), at="instances[4]"),
    ]
    results = build(runtime).encode(inputs, Stages())
    assert runtime.batches == [3]
    assert [type(result) for result in results] == [
        Encoding, BadPicture, Encoding, BadPicture, Encoding,
    ]  # fmt: skip
    assert results[1].field == "instances[1].image"
    assert [results[at].embedding[1] for at in (0, 2, 4)] == [4, 5, 1]
    assert results[2].embedding[0] == results[4].embedding[0] != 1 == results[0].embedding[0]


def test_nothing_is_run_when_nothing_is_left(build):
    runtime = Counting()
    [result] = build(runtime).encode([given(picture=b"damaged")], Stages())
    assert isinstance(result, BadPicture)
    assert build(runtime).encode([], Stages()) == []
    assert runtime.batches == []


def test_pictures_may_be_resized_in_several_groups(build, picture, monkeypatch):
    inputs = [given(picture=picture(size=(20 + at, 9), mode="L")) for at in range(7)]
    together = build(Counting()).encode(inputs, Stages())
    monkeypatch.setattr("newshelf.serving.encode._GROUP_BYTES", 1000)
    grouped = build(Counting()).encode(inputs, Stages())
    found, wanted = ([result.embedding[0] for result in many] for many in (grouped, together))
    assert found == pytest.approx(wanted)
    assert len(set(wanted)) > 1


def test_an_embedding_that_is_not_finite_is_an_error_of_its_row(build):
    results = build(Counting(poison=1)).encode([given("a"), given("of"), given("a")], Stages())
    assert [isinstance(result, Encoding) for result in results] == [True, False, True]
    assert isinstance(results[1], NewshelfError)
    assert results[1].http_status == 500


def test_a_model_without_an_image_tower_wants_text(build, picture):
    inputs = [given("ring", picture()), given(picture=picture(), at="history[0]")]
    results = build(Counting(), image=None).encode(inputs, Stages())
    assert isinstance(results[0], Encoding)
    assert isinstance(results[1], InvalidField)
    assert results[1].field == "history[0]"
    assert "needs a title or a description" in results[1].message


def test_a_model_without_a_text_tower_wants_a_picture(build, picture):
    inputs = [given("ring", picture()), given("ring")]
    results = build(Counting(), text=None).encode(inputs, Stages())
    assert isinstance(results[0], Encoding)
    assert isinstance(results[1], InvalidField)
    assert "needs an image" in results[1].message
