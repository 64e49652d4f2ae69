"""Keeps a defect that one request meets from its batch-mates and from the worker."""

import logging
from collections.abc import Sequence

from newshelf.errors import NewshelfError
from newshelf.serving.protocol import Answer, Predictor, RawRequest, error_answer

__all__ = ["predict_isolated"]

_LOG = logging.getLogger(__name__)


def predict_isolated(predictor: Predictor, rows: Sequence[RawRequest]) -> list[Answer]:
    """Answer every row whatever happens.

    When the batch raises, each row is tried alone, so that only the guilty one answers
    500. The traceback goes to the log with the request's id; the client sees the id.
    """
    try:
        answers = predictor.predict(rows)
        if len(answers) != len(rows):
            raise NewshelfError(f"{len(answers)} answers for {len(rows)} requests")
    except Exception:
        ids = ", ".join(row.request_id for row in rows)
        _LOG.exception("unexpected error while answering %s", ids)
        if len(rows) == 1:
            return [_internal(rows[0])]
        return [answer for row in rows for answer in predict_isolated(predictor, [row])]
    return answers


def _internal(row: RawRequest) -> Answer:
    return error_answer(
        NewshelfError(f"unexpected error; the server's log tells more under {row.request_id!r}")
    )
