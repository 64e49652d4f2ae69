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
    │   ├── Overloaded       503  overloaded          more requests than can be answered in time
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

    def __init_subclass__(cls, *, status: int | None = None, code: str | None = None) -> None:
        cls.http_status, cls.code = status or cls.http_status, code or cls.code

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the response: ``code``, ``message`` and ``field``."""
        return {"code": self.code, "message": self.message, "field": self.field}


class RequestError(NewshelfError, status=400, code="bad_request"):
    """The request is not valid."""


class NotJson(RequestError, code="not_json"):
    """The body is not JSON."""


class InvalidField(RequestError, status=422, code="invalid_field"):
    """A field is unknown, of the wrong type, or out of range."""


class TooLarge(RequestError, status=413, code="too_large"):
    """More bytes, pixels, characters or instances than the settings allow."""


class BadPicture(RequestError, status=422, code="bad_picture"):
    """The bytes are not a picture, or a truncated or damaged one."""


class UnsupportedMedia(RequestError, status=415, code="unsupported_media"):
    """The content type or picture format is not supported."""


class UnknownItem(RequestError, status=404, code="unknown_item"):
    """No product of the index has this id."""


class Unauthorized(RequestError, status=401, code="unauthorized"):
    """The request carries no key, or one that is unknown, revoked or expired."""


class Forbidden(RequestError, status=403, code="forbidden"):
    """The key does not have the scope that the route needs."""


class NotFound(RequestError, status=404, code="not_found"):
    """Nothing is served at this path."""


class MethodNotAllowed(RequestError, status=405, code="method_not_allowed"):
    """The path does not support this method."""


class RequestTimeout(RequestError, status=408, code="request_timeout"):
    """The request did not arrive completely in time."""


class HeadTooLarge(RequestError, status=431, code="head_too_large"):
    """The request line and headers are too large, or too many."""


class UnknownRequest(RequestError, status=404, code="unknown_request"):
    """Feedback names an answer that was never given, or a product that is not in it."""


class Conflict(RequestError, status=409, code="conflict"):
    """Feedback has the id of another event, or a merge contradicts an earlier one."""


class ErasedUnit(RequestError, status=410, code="erased_unit"):
    """Everything about the unit has been erased; nothing more is kept."""


class RateLimited(RequestError, status=429, code="rate_limited"):
    """The key's rate limit is exceeded."""

    retry_after_s: float = 1.0
    """Seconds until the next one may be sent."""


class Unavailable(NewshelfError, status=503, code="unavailable"):
    """The service cannot answer now; trying again later may work."""


class Overloaded(Unavailable, code="overloaded"):
    """More requests wait than can be answered in time."""


class DeadlineExceeded(Unavailable, status=504, code="deadline_exceeded"):
    """The request's deadline passed before it was answered."""


class SetupError(NewshelfError, code="setup"):
    """Files, settings or weights are missing or not valid."""


class CatalogError(SetupError, code="bad_catalog"):
    """The catalogue cannot be used."""


class SettingsError(SetupError, code="bad_settings"):
    """A settings file has an unknown key, a wrong type, or a bad value."""


class WeightsError(SetupError, code="bad_weights"):
    """Weights are missing, damaged, or do not fit the architecture."""


class TrainingError(SetupError, code="cannot_train"):
    """The data is not sufficient or suitable for training."""


class ParityError(SetupError, code="parity_failed"):
    """An exported model's output differs from that of the eager model."""


class VersionMismatch(SetupError, code="version_mismatch"):
    """An index, scorer and encoder do not belong together."""


class ServerError(SetupError, code="server"):
    """TorchServe did not start, did not become ready, or is not running."""


class PlanError(SetupError, code="bad_plan"):
    """A rollout's plan has an unknown key, a bad value, or decreasing steps."""


class RolloutError(SetupError, code="cannot_roll_out"):
    """A command is not allowed in the rollout's phase."""


class EvidenceError(SetupError, code="too_little_evidence"):
    """The data is not sufficient for an estimate."""
