"""What a worker computes before its first request."""

import pytest

from newshelf.config import Limits
from newshelf.serving import encoder_predictor, recommender_predictor
from newshelf.serving.encoder_predictor import load_encoder_predictor, warm_up_sizes
from newshelf.serving.recommender_predictor import load_recommender_predictor
from newshelf.serving.runtimes.base import Device
from newshelf.serving.settings import ServingSettings


@pytest.fixture
def shapes(monkeypatch):
    """Pictures, texts and products of each forward of the encoder."""
    opened, seen = encoder_predictor.open_runtime, []

    class Spy:
        def __init__(self, runtime):
            self.runtime = runtime

        def run(self, inputs):
            if "image" in inputs:
                texts = sum(row < len(inputs["attributes"]) for row in inputs["text_row"])
                seen.append((len(inputs["image"]), texts, len(inputs["attributes"])))
            return self.runtime.run(inputs)

    # Golden products are not the warm-up's.
    monkeypatch.setattr(encoder_predictor, "check_golden_embeddings", lambda *_: None)
    monkeypatch.setattr(recommender_predictor, "check_golden_embeddings", lambda *_: None)
    monkeypatch.setattr(
        encoder_predictor, "open_runtime", lambda *args, **kwargs: Spy(opened(*args, **kwargs))
    )
    return seen


def of(settings, **changes):
    return settings.model_copy(update={"max_forward_batch": 64, **changes})


@pytest.mark.parametrize(("batch", "most"), [(3, 3), (8, 4)])
def test_each_number_of_pictures_that_may_come_is_tried(bundle, settings, shapes, batch, most):
    load_encoder_predictor(bundle, settings=of(settings, batch_size=batch, max_forward_pictures=4))
    alone = [(1, 0, 1), (0, 1, 1)]
    assert shapes == [*alone, *((count, count, count) for count in range(1, most + 1))]


def test_with_a_large_batch_not_all_are(bundle, settings, shapes):
    load_encoder_predictor(bundle, settings=of(settings, batch_size=64, max_forward_pictures=64))
    assert max(pictures for pictures, _, _ in shapes) == 8


@pytest.mark.parametrize("limits", [Limits(max_history=2), Limits(max_instances=2)])
def test_the_recommender_tries_no_more_products_than_a_request_may_have(
    bundle, settings, shapes, limits
):
    load_recommender_predictor(
        bundle, settings=of(settings, batch_size=4, max_forward_pictures=4, limits=limits)
    )
    assert [pictures for pictures, _, _ in shapes] == [1, 0, 1, 2, 2, 2]


def test_a_gpu_tries_every_magnitude_and_the_largest_batch_first():
    # A request brings many products, so a forward may be larger than a batch of requests.
    sizes = warm_up_sizes(ServingSettings(batch_size=8, max_forward_batch=48), Device("cuda"))
    assert sizes == [48, 32, 16, *range(8, 0, -1)]
    assert warm_up_sizes(ServingSettings(max_forward_batch=1), Device("cuda")) == [1]
