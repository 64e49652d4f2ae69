"""The encoder's handler, whose predictor fails as a request asks for.

It takes the place of the encoder's own in the archives of ``benchmarks.gpu.recovery``.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handlers.adapter import LOST_GPU, Adapter
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import Answer, Predictor, RawRequest
from newshelf.serving.runtimes.base import Device

HEADER = "x-newshelf-fault"


class FaultyHandler(Adapter):
    """Answers as the encoder's handler does, after it has failed."""

    def load(self, directory: Path, **options: Any) -> Predictor:
        """Load the encoder."""
        predictor = load_encoder_predictor(directory, **options)
        predict, device = predictor.predict, options["device"]

        def fail_first(rows: Sequence[RawRequest]) -> list[Answer]:
            for row in rows:
                if HEADER in row.headers:
                    fail(row.headers[HEADER], device)
            return predict(rows)

        predictor.predict = fail_first  # type: ignore[method-assign]
        return predictor


def fail(fault: str, device: Device) -> None:
    """Let the GPU fail: ``assert`` loses it to this process, ``memory`` asks for too much."""
    if device.kind == "cpu":
        if fault == "assert":
            os._exit(LOST_GPU)
        raise MemoryError(fault)
    import torch  # noqa: PLC0415

    if fault == "assert":
        beyond = torch.tensor([99], device=str(device))
        torch.zeros(4, device=str(device))[beyond].cpu()
    torch.empty(1 << 50, dtype=torch.uint8, device=str(device))
