"""Features of a title's characters from the packaged multilingual text tower."""

from collections.abc import Sequence

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from newshelf.attributes.title_features import places
from newshelf.config import TextTowerSettings
from newshelf.nn.weights import load_text_tower

_LAYERS = 8
"""Of twelve; chosen like the width on held-out training titles."""
_WIDTH = 96
_FITTED_TITLES = 1000


class TitleContext:
    """Hidden states of the tower, as whitened principal components of those of ``titles``."""

    def __init__(self, titles: Sequence[str]) -> None:
        settings = TextTowerSettings(weights="packaged-multilingual", max_tokens=512)
        loaded = load_text_tower(settings)
        self._tokenizer = tokenizers.Tokenizer.from_str(loaded.tokenizer_json)
        self._tokenizer.enable_truncation(settings.max_tokens)
        self._tower = loaded.tower.backbone
        self._tower.encoder.layer = self._tower.encoder.layer[:_LAYERS]
        states = np.concatenate([self._states(title)[1] for title in titles[:_FITTED_TITLES]])
        self._components = PCA(min(_WIDTH, *states.shape), whiten=True, random_state=0).fit(states)

    def of(self, title: str) -> list[dict[str, float]]:
        """Return each character's place in its token with the token's components."""
        rows: list[dict[str, float]] = [{} for _ in title]
        spans, states = self._states(title)
        values = self._components.transform(states).tolist() if spans else []
        for (start, end), row in zip(spans, values, strict=True):
            for at, place in enumerate(places(start, end), start):
                rows[at] = {f"{place}{number}": value for number, value in enumerate(row)}
        return rows

    def _states(self, title: str) -> tuple[list[tuple[int, int]], NDArray[np.float32]]:
        """Return the ranges of the title's tokens, and their states ``(tokens, 384)``."""
        encoded = self._tokenizer.encode(title)
        kept = [at for at, (start, end) in enumerate(encoded.offsets) if end > start]
        with torch.inference_mode():
            states = self._tower(input_ids=torch.tensor([encoded.ids])).last_hidden_state[0]
        return [encoded.offsets[at] for at in kept], states[kept].numpy()
