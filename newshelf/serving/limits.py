"""How much one request may ask for, and how a worker is set up."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newshelf.errors import SettingsError

__all__ = ["Limits", "ServingSettings"]

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Section):
    """Safe by default. The ``limits`` section of ``model-config.yaml``."""

    max_body_bytes: Positive = 6_553_500
    """All parts of one request together; TorchServe's own default cap."""
    max_picture_bytes: Positive = 5_000_000
    """One picture, after base64."""
    max_pixels: Positive = 40_000_000
    """Width times height of one picture, read from its header before it is decoded."""
    max_text_chars: Positive = 10_000
    """Each text field of a product."""
    max_instances: Positive = 64
    """Products to encode in one request."""
    max_history: Positive = 200
    max_candidates: Positive = 1_000
    max_k: Positive = 100


class ServingSettings(_Section):
    """The ``serving`` section of ``model-config.yaml``, and the limits beside it."""

    runtime: Literal["onnxruntime", "torchscript"] = "onnxruntime"
    threads: Positive = 1
    """Intra-op threads of this worker: cores divided by workers."""
    decode_threads: Positive = 2
    max_forward_batch: Positive = 64
    """Products in one forward of the encoder; more are done in turns."""
    retrieve: Positive = 400
    """Items that reach the scorer when a request does not name its candidates."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Least confidence of what is known beyond the columns, for filters and reasons."""
    limits: Limits = Limits()

    @classmethod
    def from_model_config(cls, config: Mapping[str, object] | None) -> "ServingSettings":
        """Read the sections ``serving`` and ``limits`` of a parsed ``model-config.yaml``.

        The other keys are the model server's.

        Raises:
            SettingsError: an unknown key or a bad value in one of the two sections.
        """
        config = config or {}
        section = config.get("serving") or {}
        if not isinstance(section, Mapping):
            raise SettingsError("model-config.yaml: serving must be a mapping of keys")
        table = {**section, "limits": config.get("limits") or {}}
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            reasons = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
                for problem in error.errors()
            )
            raise SettingsError(f"model-config.yaml: {reasons}") from error
