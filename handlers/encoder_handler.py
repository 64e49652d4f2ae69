"""TorchServe's adapter of the encoder; everything else is in ``newshelf.serving``."""

from pathlib import Path
from typing import Any

from handlers.adapter import Adapter
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import Predictor


class EncoderHandler(Adapter):
    """Answers ``POST /predictions/encoder``, one status and body per row of the batch."""

    def load(self, directory: Path, **options: Any) -> Predictor:
        """Load the encoder."""
        return load_encoder_predictor(directory, **options)
