"""The encoder's inputs, row by row."""

import numpy as np
import pytest

from newshelf.catalog.schema import Product
from newshelf.nn.inputs import Tokenizer
from newshelf.serving.preprocess import InputBuilder

NAMES = ["image", "image_row", "input_ids", "attention_mask", "text_row", "attributes"]


@pytest.fixture(scope="module")
def tokenizer(bundle):
    return Tokenizer(bundle / "tokenizer.json", 16, 0)


@pytest.fixture(scope="module")
def builder(spec, tokenizer):
    return InputBuilder(spec.encoder, tokenizer)


def inputs_of(builder, products, images=None, image_row=()):
    contents = [builder.content(product) for product in products]
    return builder.inputs(contents, builder.tokens(contents), images, image_row)


def test_rows_are_compact(builder):
    products = [Product(color="red"), Product(title="jade ring"), Product(description="a lamp")]
    images = np.ones((2, 3, 32, 32), dtype=np.float32)
    inputs = inputs_of(builder, products, images, [0, 2])
    assert list(inputs) == NAMES
    assert inputs["image"] is images
    assert inputs["image_row"].tolist() == [0, 2]
    assert inputs["input_ids"].tolist() == [[2, 4, 7, 3], [2, 12, 9, 3]]
    assert inputs["attention_mask"].tolist() == [[1] * 4, [1] * 4]
    assert inputs["text_row"].tolist() == [1, 2]
    assert inputs["attributes"].shape == (3, 9)
    assert (inputs["attributes"][1:] == 0).all()
    assert {inputs[name].dtype for name in NAMES[1:]} == {np.dtype(np.int64)}


def test_no_picture_is_none_at_all(builder):
    inputs = inputs_of(builder, [Product(title="jade")])
    assert inputs["image"].shape == (0, 3, 32, 32)
    assert inputs["image_row"].shape == (0,)
    assert inputs["image_row"].dtype == np.int64


def test_padding_stands_in_where_nothing_is(spec, tokenizer):
    builder = InputBuilder(spec.encoder, tokenizer, on_gpu=True)
    inputs = inputs_of(builder, [Product(), Product()])
    assert inputs["image"].shape == (1, 3, 32, 32)
    assert inputs["image"].dtype == np.float32
    assert inputs["image_row"].tolist() == [2]
    assert inputs["input_ids"].tolist() == [[2, 3]]
    assert inputs["text_row"].tolist() == [2]


def test_absent_towers_get_the_smallest_inputs(spec):
    bare = spec.encoder.model_copy(update={"image": None, "text": None})
    images = np.ones((1, 3, 8, 8), dtype=np.float32)
    inputs = inputs_of(InputBuilder(bare, None), [Product(title="a")], images, [0])
    assert inputs["image"].shape == (1, 3, 1, 1)
    assert inputs["input_ids"].shape == (1, 1)
    assert inputs["image_row"].tolist() == inputs["text_row"].tolist() == [1]


def test_a_text_is_content_only_where_it_is_read(spec, builder):
    product = Product(id="i1", title="jade ring", color="red")
    bare = InputBuilder(spec.encoder.model_copy(update={"text": None}), None)
    assert builder.content(product).text == "jade ring"
    assert bare.content(product).text == ""
    # The id says nothing of what a product is.
    assert builder.content(product) == builder.content(product.model_copy(update={"id": "i2"}))
