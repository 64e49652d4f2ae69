"""TorchServe's adapter of the recommender; everything else is in ``newshelf.serving``."""

from pathlib import Path
from typing import Any

from handlers.adapter import Adapter
from newshelf.serving.protocol import Predictor
from newshelf.serving.recommender_predictor import RecommenderPredictor, load_recommender_predictor


class RecommenderHandler(Adapter):
    """Answers ``POST /predictions/recommender``, one status and body per row of the batch."""

    def load(self, directory: Path, **options: Any) -> Predictor:
        """Load encoder, scorer and index."""
        return load_recommender_predictor(directory, **options)

    def initialize(self, context: Any) -> None:
        """Load, then follow the live shelf in a thread of this very process."""
        super().initialize(context)
        if isinstance(self.predictor, RecommenderPredictor):
            self.predictor.follow()
