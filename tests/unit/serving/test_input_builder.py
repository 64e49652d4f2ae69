"""The encoder's inputs; on ``cuda`` too, under FakeTensorMode, on a machine without a GPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from newshelf.catalog.schema import Product
from newshelf.nn.inputs import Tokenizer
from newshelf.serving.asked import parse_recommend
from newshelf.serving.encode import ProductEncoder
from newshelf.serving.index import load_index
from newshelf.serving.limits import Limits
from newshelf.serving.observe import Stages
from newshelf.serving.preprocess import InputBuilder
from newshelf.serving.products import ProductInput
from newshelf.serving.protocol import RawRequest
from newshelf.serving.ranking import rank_by_model
from newshelf.serving.resolve import resolve

CPU = torch.device("cpu")
NAMES = ["image", "image_row", "input_ids", "attention_mask", "text_row", "attributes"]


@pytest.fixture(scope="module")
def tokenizer(bundle):
    return Tokenizer(bundle / "tokenizer.json", 16, 0)


@pytest.fixture(scope="module")
def builder(spec, tokenizer):
    return InputBuilder(spec.encoder, tokenizer, CPU)


def grey(height: int, width: int) -> torch.Tensor:
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def test_rows_are_compact(builder):
    products = [Product(color="red"), Product(title="jade ring"), Product(description="a lamp")]
    images = builder.pictures([grey(10, 70), grey(90, 20)])
    inputs = builder.inputs(products, images, [0, 2])
    assert list(inputs) == NAMES
    assert inputs["image"].shape == (2, 3, 32, 32)
    assert inputs["image"].dtype == torch.float32
    assert inputs["image_row"].tolist() == [0, 2]
    assert inputs["input_ids"].tolist() == [[2, 4, 7, 3], [2, 12, 9, 3]]
    assert inputs["attention_mask"].tolist() == [[1] * 4, [1] * 4]
    assert inputs["text_row"].tolist() == [1, 2]
    assert inputs["attributes"].shape == (3, 9)
    assert inputs["attributes"].dtype == torch.int64
    assert (inputs["attributes"][1:] == 0).all()


def test_padding_stands_in_where_nothing_is(builder):
    inputs = builder.inputs([Product(), Product()], builder.pictures([]), [])
    assert inputs["image"].shape == (1, 3, 32, 32)
    assert inputs["image_row"].tolist() == [2]
    assert inputs["input_ids"].tolist() == [[2, 3]]
    assert inputs["text_row"].tolist() == [2]


def test_absent_towers_get_the_smallest_inputs(spec):
    bare = spec.encoder.model_copy(update={"image": None, "text": None})
    builder = InputBuilder(bare, None, CPU)
    inputs = builder.inputs([Product(title="a")], builder.pictures([grey(9, 9)]), [])
    assert inputs["image"].shape == (1, 3, 1, 1)
    assert inputs["input_ids"].shape == (1, 1)
    assert inputs["image_row"].tolist() == inputs["text_row"].tolist() == [1]


def test_every_input_is_placed_on_the_gpu(spec, tokenizer):
    with FakeTensorMode():
        builder = InputBuilder(spec.encoder, tokenizer, torch.device("cuda", 0))
        pictures = [torch.empty((3, 50, 40), dtype=torch.uint8) for _ in range(2)]
        images = builder.pictures(pictures)
        inputs = builder.inputs([Product(title="jade"), Product(title="a ring")], images, [0, 1])
        empty = builder.inputs([Product(title="jade")], builder.pictures([]), [])
    for tensors in (inputs, empty):
        assert {str(tensor.device) for tensor in tensors.values()} == {"cuda:0"}
    assert inputs["image"].shape == (2, 3, 32, 32)
    assert inputs["input_ids"].shape == (2, 4)


def test_a_runtime_on_the_gpu_is_given_tensors_of_its_device(spec, tokenizer):
    """The whole of ``ProductEncoder`` but the last step, with a graph that only looks."""
    seen: dict[str, torch.device] = {}

    class Looking:
        device = torch.device("cuda", 0)

        def run(self, inputs):
            seen.update({name: tensor.device for name, tensor in inputs.items()})
            # A mix of devices in one operation would raise here.
            rows = inputs["image"].new_zeros((3, 8)).index_select(0, inputs["image_row"])
            assert rows.device == self.device
            raise InterruptedError

    class Decoder:
        def decode(self, inputs):
            return iter([torch.empty((3, 50, 40), dtype=torch.uint8) for _ in inputs])

    with FakeTensorMode():
        encoder = ProductEncoder(
            spec.encoder,
            Looking(),
            InputBuilder(spec.encoder, tokenizer, Looking.device),
            Decoder(),
            8,
        )
        products = [
            ProductInput(Product(title="a ring"), b"picture", "history[0]"),
            ProductInput(Product(title="jade"), None, "history[1]"),
        ]
        with pytest.raises(InterruptedError):
            encoder.encode(products, Stages())
    assert set(seen) == set(NAMES)
    assert {str(device) for device in seen.values()} == {"cuda:0"}


def test_the_scorer_is_given_tensors_of_its_device(bundle, spec):
    """Retrieval is numpy's; what it finds is moved to the scorer, padded and masked."""

    class Looking:
        device = torch.device("cuda", 0)

        def run(self, inputs):
            assert {str(tensor.device) for tensor in inputs.values()} == {"cuda:0"}
            assert inputs["history"].shape == (2, 3, 16)
            assert inputs["candidates"].shape == (2, 12, 16)
            assert inputs["history_mask"].dtype == torch.bool
            raise InterruptedError

    index = load_index(bundle / "index", encoder_version="0123456789ab")
    asked = [
        parse_recommend(RawRequest({"body": body}, "application/json"), Limits())
        for body in (b'{"history": ["i00"], "k": 3}', b'{"history": ["i01", "i02", "i03"]}')
    ]
    rows = [resolve(item, {}, index, 4) for item in asked]
    with FakeTensorMode(), pytest.raises(InterruptedError):
        rank_by_model(rows, Looking(), 12)
