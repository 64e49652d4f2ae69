"""Tree of the errors that Newshelf raises on purpose, with their HTTP status and code.

::

    NewshelfError            500  internal
    ├── RequestError         400  bad_request         a client error
    │   ├── NotJson          400  not_json
    │   ├── InvalidField     422  invalid_field
    │   ├── TooLarge         413  too_large           bytes, pixels, instances
    │   ├── BadPicture       422  bad_picture         not a picture, or a damaged one
    │   ├── UnsupportedMedia 415  unsupported_media
    │   ├── UnknownItem      404  unknown_item
    │   ├── Unauthorized     401  unauthorized        no key, or an unknown or expired one
    │   ├── Forbidden        403  forbidden           the key lacks the route's scope
    │   ├── NotFound         404  not_found           no such path
    │   ├── MethodNotAllowed 405  method_not_allowed
    │   ├── RequestTimeout   408  request_timeout     the request was incomplete in time
    │   ├── HeadTooLarge     431  head_too_large
    │   ├── UnknownRequest   404  unknown_request     feedback on an answer that was not given
    │   ├── Conflict         409  conflict            another event's id, or a second merge
    │   ├── ErasedUnit       410  erased_unit         everything about this unit has been erased
    │   └── RateLimited      429  rate_limited
    ├── Unavailable          503  unavailable
    │   └── DeadlineExceeded 504  deadline_exceeded
    └── SetupError           500  setup               an operator error
        ├── CatalogError     500  bad_catalog
        ├── SettingsError    500  bad_settings
        ├── WeightsError     500  bad_weights
        ├── TrainingError    500  cannot_train
        ├── ParityError      500  parity_failed
        ├── VersionMismatch  500  version_mismatch
        ├── ServerError      500  server
        ├── PlanError        500  bad_plan
        ├── RolloutError     500  cannot_roll_out
        └── EvidenceError    500  too_little_evidence

A message says what is wrong and how to fix it. ``field`` is the path of the invalid part of a
request (``history[2].image``), or None.
"""

from typing import Any, ClassVar


class NewshelfError(Exception):
    """Base of the tree; clients receive ``http_status`` and ``code``."""

    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the response: ``code``, ``message`` and ``field``."""
        return {"code": self.code, "message": self.message, "field": self.field}


class RequestError(NewshelfError):
    """The request is not valid."""

    http_status = 400
    code = "bad_request"


class NotJson(RequestError):
    """The body is not JSON."""

    code = "not_json"


class InvalidField(RequestError):
    """A field is unknown, of the wrong type, or out of range."""

    http_status = 422
    code = "invalid_field"


class TooLarge(RequestError):
    """More bytes, pixels, characters or instances than the settings allow."""

    http_status = 413
    code = "too_large"


class BadPicture(RequestError):
    """The bytes are not a picture, or a truncated or damaged one."""

    http_status = 422
    code = "bad_picture"


class UnsupportedMedia(RequestError):
    """The content type or picture format is not supported."""

    http_status = 415
    code = "unsupported_media"


class UnknownItem(RequestError):
    """No product of the index has this id."""

    http_status = 404
    code = "unknown_item"


class Unauthorized(RequestError):
    """The request carries no key, or one that is unknown, revoked or expired."""

    http_status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    """The key does not have the scope that the route needs."""

    http_status = 403
    code = "forbidden"


class NotFound(RequestError):
    """Nothing is served at this path."""

    http_status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path does not support this method."""

    http_status = 405
    code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The request did not arrive completely in time."""

    http_status = 408
    code = "request_timeout"


class HeadTooLarge(RequestError):
    """The request line and headers are too large, or too many."""

    http_status = 431
    code = "head_too_large"


class UnknownRequest(RequestError):
    """Feedback names an answer that was never given, or a product that is not in it."""

    http_status = 404
    code = "unknown_request"


class Conflict(RequestError):
    """Feedback has the id of another event, or a merge contradicts an earlier one."""

    http_status = 409
    code = "conflict"


class ErasedUnit(RequestError):
    """Everything about the unit has been erased; nothing more is kept."""

    http_status = 410
    code = "erased_unit"


class RateLimited(RequestError):
    """The key's rate limit is exceeded."""

    http_status = 429
    code = "rate_limited"
    retry_after_s: float = 1.0
    """Seconds until the next one may be sent."""


class Unavailable(NewshelfError):
    """The service cannot answer now; trying again later may work."""

    http_status = 503
    code = "unavailable"


class DeadlineExceeded(Unavailable):
    """The request's deadline passed before it was answered."""

    http_status = 504
    code = "deadline_exceeded"


class SetupError(NewshelfError):
    """Files, settings or weights are missing or not valid."""

    code = "setup"


class CatalogError(SetupError):
    """The catalogue cannot be used."""

    code = "bad_catalog"


class SettingsError(SetupError):
    """A settings file has an unknown key, a wrong type, or a bad value."""

    code = "bad_settings"


class WeightsError(SetupError):
    """Weights are missing, damaged, or do not fit the architecture."""

    code = "bad_weights"


class TrainingError(SetupError):
    """The data is not sufficient or suitable for training."""

    code = "cannot_train"


class ParityError(SetupError):
    """An exported model's output differs from that of the eager model."""

    code = "parity_failed"


class VersionMismatch(SetupError):
    """An index, scorer and encoder do not belong together."""

    code = "version_mismatch"


class ServerError(SetupError):
    """TorchServe did not start, did not become ready, or is not running."""

    code = "server"


class PlanError(SetupError):
    """A rollout's plan has an unknown key, a bad value, or decreasing steps."""

    code = "bad_plan"


class RolloutError(SetupError):
    """A command is not allowed in the rollout's phase."""

    code = "cannot_roll_out"


class EvidenceError(SetupError):
    """The data is not sufficient for an estimate."""

    code = "too_little_evidence"
