"""Predictions of the encoder for a batch of requests."""

from collections.abc import Sequence
from dataclasses import dataclass

from newshelf.config import Limits
from newshelf.errors import DeadlineExceeded, NewshelfError
from newshelf.serving.encode import ProductEncoder, Result
from newshelf.serving.products import ProductInput, parse_products
from newshelf.serving.protocol import Answer, RawRequest, error_answer, json_answer
from newshelf.serving.trace import RecordingObserver, StageTimer

_TEXT_UNREAD = (
    "the text counts as absent: this model's text tower knows no word of title and description"
)


@dataclass(frozen=True, slots=True)
class _Row:
    """One request on its way: an entry per product, or one error for all of it."""

    products: Sequence[ProductInput | NewshelfError]
    many: bool = False


@dataclass(eq=False)
class EncoderPredictor:
    """Products → embeddings and labels; one forward for all the requests of a batch.

    A request with ``instances`` answers 200 as long as one of them was encoded, with an
    ``error`` in the place of each that was not; when none was, it answers as the first, and
    when its deadline passed on the way, nobody waits for the rest.
    """

    encoder: ProductEncoder
    model_version: str
    limits: Limits
    observer: RecordingObserver | None = None

    def predict(self, rows: Sequence[RawRequest]) -> list[Answer]:
        """See ``newshelf.serving.protocol.Predictor``."""
        stages = StageTimer()
        with stages.measure("parse"):
            parsed = [self._parse(row) for row in rows]
        items = (item for row in parsed for item in row.products)
        readable = [item for item in items if isinstance(item, ProductInput)]
        encoded = iter(self.encoder.encode(readable, stages))
        with stages.measure("postprocess"):
            results = [
                [
                    item if isinstance(item, NewshelfError) else next(encoded)
                    for item in row.products
                ]
                for row in parsed
            ]
            answers = [
                self._answer(row, result) for row, result in zip(parsed, results, strict=True)
            ]
        stages.report(self.observer, len(rows))
        return answers

    def _parse(self, request: RawRequest) -> _Row:
        try:
            return _Row(*parse_products(request, self.limits))
        except NewshelfError as error:
            return _Row([error])

    def _answer(self, row: _Row, results: Sequence[Result]) -> Answer:
        errors = [result for result in results if isinstance(result, NewshelfError)]
        late = [error for error in errors if isinstance(error, DeadlineExceeded)]
        if late or len(errors) == len(results):
            return error_answer((late or errors)[0])
        if not row.many:
            return json_answer(self._prediction(results[0]))
        predictions = [self._prediction(result) for result in results]
        return json_answer({"predictions": predictions, "model_version": self.model_version})

    def _prediction(self, result: Result) -> dict[str, object]:
        if isinstance(result, NewshelfError):
            return {"error": {**result.body(), "status": result.http_status}}
        labels = {
            head: {"value": value, "score": score} for head, (value, score) in result.labels.items()
        }
        prediction: dict[str, object] = {
            "embedding": result.embedding,
            "labels": labels,
            "model_version": self.model_version,
        }
        if result.text_unread:
            prediction["warnings"] = [_TEXT_UNREAD]
        return prediction
