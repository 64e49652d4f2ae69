"""Placement on a GPU, on a machine without one.

Under FakeTensorMode tensors and modules have a device and a shape but no data, and an
operation that mixes devices raises: so do the networks, if they make a tensor elsewhere.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec

GPU = torch.device("cuda", 0)
NAMES = ("image", "image_row", "input_ids", "attention_mask", "text_row", "attributes")


@pytest.fixture
def siamese() -> SiameseScorer:
    return SiameseScorer(ScorerSpec(width=16, hidden=32), 512).eval()


@pytest.fixture
def fake():
    """Asked for last: real networks cannot be built under it."""
    with FakeTensorMode():
        yield


def on_gpu(module: nn.Module) -> Callable[..., Any]:
    """``module``, its parameters and buffers replaced by some on the GPU, without data.

    A tensor that it holds in any other way stays where it is, and is found out.
    """
    tensors = (*module.named_parameters(), *module.named_buffers())
    state = {n: torch.empty(t.shape, dtype=t.dtype, device=GPU) for n, t in tensors}
    return lambda *inputs, **named: functional_call(module, state, inputs, named)


def example(device: torch.device) -> dict[str, torch.Tensor]:
    whole = {"dtype": torch.int64, "device": device}
    return {
        "image": torch.empty(2, 3, 32, 32, device=device),
        "image_row": torch.empty(2, **whole),
        "input_ids": torch.empty(3, 7, **whole),
        "attention_mask": torch.empty(3, 7, **whole),
        "text_row": torch.empty(3, **whole),
        "attributes": torch.empty(4, 9, **whole),
    }


def devices(*tensors: torch.Tensor) -> set[torch.device]:
    return {tensor.device for tensor in tensors}


def test_the_encoder_answers_on_the_gpu(encoder, fake):
    outputs = on_gpu(encoder)(**example(GPU))
    assert devices(*outputs) == {GPU}
    assert [tuple(output.shape) for output in outputs] == [(4, 512), (4, 3), (4, 2)]


@pytest.mark.parametrize("name", NAMES)
def test_an_input_left_on_the_cpu_raises(encoder, fake, name):
    inputs = example(GPU)
    moved = on_gpu(encoder)
    inputs[name] = example(torch.device("cpu"))[name]
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        moved(**inputs)


def test_each_tower_answers_on_the_gpu_and_refuses_the_cpu(encoder, fake):
    towers = {
        encoder.image_tower: ("image",),
        encoder.text_tower: ("input_ids", "attention_mask"),
        encoder.attribute_tower: ("attributes",),
    }
    for module, names in towers.items():
        tower = on_gpu(module)
        assert tower(*(example(GPU)[name] for name in names)).device == GPU
        with pytest.raises(RuntimeError, match=r"(?i)device"):
            tower(*(example(torch.device("cpu"))[name] for name in names))


def test_fusion_answers_on_the_gpu_and_refuses_the_cpu(encoder, fake):
    fusion = on_gpu(encoder.fusion)
    widths = [72, encoder.spec.image.features, 32]
    features = [torch.empty(4, width, device=GPU) for width in widths]
    present = torch.empty(4, 3, dtype=torch.bool, device=GPU)
    assert fusion(features, present).device == GPU
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        fusion(features, present.cpu())


@pytest.mark.parametrize("mixed", [None, 0, 1, 2])
def test_the_scorer_answers_on_the_gpu_and_refuses_a_mixture(siamese, fake, mixed):
    scorer = on_gpu(siamese)
    inputs = [
        torch.empty(2, 5, 512, device=GPU),
        torch.empty(2, 5, dtype=torch.bool, device=GPU),
        torch.empty(2, 7, 512, device=GPU),
    ]
    if mixed is None:
        scores = scorer(*inputs)
        assert scores.device == GPU
        assert scores.shape == (2, 7)
        return
    inputs[mixed] = inputs[mixed].cpu()
    with pytest.raises(RuntimeError, match=r"(?i)device"):
        scorer(*inputs)
