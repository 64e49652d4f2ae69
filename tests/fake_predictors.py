"""Deterministic predictors without a model, for tests of whatever stands in front.

They parse and check requests with the same code and answer in the same shape; what they
answer follows from a hash of the request. They import no torch.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from newshelf.config import Limits
from newshelf.errors import NewshelfError, RequestError, UnknownItem
from newshelf.serving.products import ProductInput, parse_products
from newshelf.serving.protocol import Answer, RawRequest, error_answer, json_answer
from newshelf.serving.requests import ParsedRequest, parse_recommend
from newshelf.serving.schemas import RecommendedItem, Understood

__all__ = ["FAKE_IDS", "FakeEncoderPredictor", "FakeRecommenderPredictor", "RecommendAnswer"]


class RecommendAnswer(BaseModel):
    """The shape of a recommender's answer."""

    model_config = ConfigDict(extra="forbid")

    items: list[RecommendedItem]
    model_version: str
    index_version: str
    request_id: str
    ignored: list[str] = []
    understood: Understood | None = None


FAKE_IDS = tuple(f"item-{number:03}" for number in range(200))


class FakeEncoderPredictor:
    """Unit vectors from a hash; a picture is hashed, not decoded."""

    def __init__(self, model_version: str = "fake00000000", limits: Limits | None = None) -> None:
        self._model_version = model_version
        self._limits = limits or Limits()

    def predict(self, rows: Sequence[RawRequest]) -> list[Answer]:
        """See ``newshelf.serving.protocol.Predictor``."""
        return [self._answer(row) for row in rows]

    def _answer(self, row: RawRequest) -> Answer:
        try:
            products, many = parse_products(row, self._limits)
        except NewshelfError as error:
            return error_answer(error)
        first = products[0]
        if isinstance(first, RequestError) and all(
            isinstance(item, RequestError) for item in products
        ):
            return error_answer(first)
        predictions = [self._prediction(item) for item in products]
        if not many:
            return json_answer(predictions[0])
        return json_answer({"predictions": predictions, "model_version": self._model_version})

    def _prediction(self, item: ProductInput | RequestError) -> dict[str, object]:
        if isinstance(item, RequestError):
            return {"error": {**item.body(), "status": item.http_status}}
        seed = f"{item.product!r}{item.picture!r}"
        return {
            "embedding": _unit_vector(seed),
            "labels": {"color": {"value": item.product.color or "green", "score": 0.5}},
            "model_version": self._model_version,
        }


class FakeRecommenderPredictor:
    """Ranks a small invented catalogue, or the candidates, by a hash of history and item.

    Args:
        ids: the items of its index.
        model_version: given back in answers.
        index_version: given back in answers.
        limits: as the real one's.
    """

    def __init__(
        self,
        ids: Sequence[str] = FAKE_IDS,
        *,
        model_version: str = "fake00000000",
        index_version: str = "fake00000001",
        limits: Limits | None = None,
    ) -> None:
        self._ids = list(ids)
        self._model_version = model_version
        self._index_version = index_version
        self._limits = limits or Limits()

    def predict(self, rows: Sequence[RawRequest]) -> list[Answer]:
        """See ``newshelf.serving.protocol.Predictor``."""
        return [self._answer(row) for row in rows]

    def _answer(self, row: RawRequest) -> Answer:
        try:
            asked = parse_recommend(row, self._limits)
            known, ignored = self._candidates(asked)
        except NewshelfError as error:
            return error_answer(error)
        history = [_id(ref) for ref in asked.history]
        left_out = {*history, *asked.request.exclude}
        scored = [(_share(f"{history}{item}"), item) for item in known if item not in left_out]
        source = "model" if history else "popular"
        body: dict[str, object] = {
            "items": [
                {
                    "id": item,
                    "score": score,
                    "source": source,
                    **({"reason": "by a hash"} if asked.request.explain else {}),
                }
                for score, item in sorted(scored, reverse=True)[: asked.request.k]
            ],
            "model_version": self._model_version,
            "index_version": self._index_version,
            "request_id": row.request_id,
        }
        if asked.request.search is not None:
            body["understood"] = {"filters": {"color": ["blue"]}}
        return json_answer({**body, "ignored": ignored} if ignored else body)

    def _candidates(self, asked: ParsedRequest) -> tuple[list[str], list[str]]:
        named = (*asked.history, *(asked.candidates or ()))
        unknown = [ref for ref in named if isinstance(ref, str) and ref not in self._ids]
        if asked.candidates is None:
            return self._ids, unknown
        known = [_id(ref) for ref in asked.candidates if ref not in unknown]
        if not known:
            raise UnknownItem("the index knows none of the candidates", field="candidates")
        return known, unknown


def _id(ref: str | ProductInput) -> str:
    return ref if isinstance(ref, str) else ref.product.id or ref.at


def _share(seed: str) -> float:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]) / 2**32


def _unit_vector(seed: str) -> NDArray[np.float32]:
    digest = hashlib.sha256(seed.encode()).digest()
    vector = np.random.default_rng(list(digest)).standard_normal(512).astype(np.float32)
    return vector / np.linalg.norm(vector)
