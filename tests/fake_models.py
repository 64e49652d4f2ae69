"""A fake model of a recommender in NumPy: an encoder that hashes products, and an exact scorer."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from newshelf.nn.numpy_scorer import Pooling
from newshelf.serving.encode import Encoding
from newshelf.serving.products import ProductInput
from newshelf.serving.runtimes.base import ScorerGraphs

WIDTH, PROJECTED = 16, 8
POOLING = Pooling(sharpness=4.0, weight=0.6, scale=9.0)
_PROJECTION = np.random.default_rng(11).standard_normal((WIDTH, PROJECTED)).astype(np.float32)

FloatArray = NDArray[np.float32]


def unit_rows(count: int, seed: int, width: int = WIDTH) -> FloatArray:
    """Return random rows of unit length, no two of them alike."""
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def project(embeddings: FloatArray) -> FloatArray:
    """Return what the fake projector gives."""
    projected = embeddings @ _PROJECTION
    unit: FloatArray = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return unit


class FakeProjector:
    def run(self, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {"vector": project(inputs["embedding"])}


class FakeScorer:
    """The history scorer, one request at a time."""

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, FloatArray]:
        history, mask, candidates = (
            inputs[name] for name in ("history", "history_mask", "candidates")
        )
        attention = np.zeros((*candidates.shape[:2], history.shape[1]), dtype=np.float32)
        scores = np.zeros(candidates.shape[:2], dtype=np.float32)
        for at, there in enumerate(mask):
            similarity = POOLING.similarity(history[at][there], candidates[at])
            weights = np.exp(similarity * np.float32(POOLING.sharpness))
            attention[at][:, : weights.shape[1]] = weights / weights.sum(axis=1, keepdims=True)
            scores[at] = POOLING.scores(similarity)
        return {"scores": scores, "attention": attention}


class FakeEncoder:
    """An embedding from a hash of the product."""

    def encode(self, products: Sequence[ProductInput], _stages: object) -> list[Encoding]:
        seeds = [hashlib.sha256(repr(item.product).encode()).digest() for item in products]
        return [Encoding(unit_rows(1, int.from_bytes(seed[:4], "little"))[0], {}) for seed in seeds]


def fake_scorer(max_history: int = 4) -> ScorerGraphs:
    return ScorerGraphs(FakeProjector(), FakeScorer(), max_history)
