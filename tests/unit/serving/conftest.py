"""Predictors over the tiny model, and what is sent to them."""

import base64
import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from newshelf.nn.numpy_scorer import Pooling
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import RawRequest
from newshelf.serving.recommender_predictor import load_recommender_predictor
from newshelf.serving.settings import ServingSettings
from newshelf.serving.trace import RecordingObserver
from tests.served_model import LIMITS, items_frame, pooling_of


@pytest.fixture(scope="session")
def pooling(scorer) -> Pooling:
    return pooling_of(scorer)


@pytest.fixture(scope="session")
def settings() -> ServingSettings:
    return ServingSettings(runtime="torchscript", retrieve=12, max_forward_batch=3, limits=LIMITS)


@pytest.fixture(scope="session")
def recorder() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture(scope="session")
def encoder_predictor(bundle, settings, recorder):
    return load_encoder_predictor(bundle, settings=settings, observer=recorder)


@pytest.fixture(scope="session")
def recommender(bundle, settings):
    return load_recommender_predictor(bundle, settings=settings)


@pytest.fixture(scope="session")
def frame() -> pd.DataFrame:
    return items_frame()


@pytest.fixture(scope="session")
def post():
    """Send a batch (JSON values, bytes or whole requests); statuses with parsed answers."""

    def send(predictor, *bodies):
        rows = [_request(body, at) for at, body in enumerate(bodies)]
        answers = predictor.predict(rows)
        assert len(answers) == len(rows)
        return [(answer.status, json.loads(answer.body)) for answer in answers]

    return send


def _request(body, at: int) -> RawRequest:
    if isinstance(body, RawRequest):
        # Those without a name may have been made long before they are sent.
        return body if body.request_id else replace(body, arrived_s=time.monotonic())
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return RawRequest({"body": raw}, "application/json", f"request-{at}")


@pytest.fixture(scope="session")
def b64():
    return lambda data: base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def unit_rows():
    def make(count: int, width: int, seed: int = 0) -> np.ndarray:
        rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return make
