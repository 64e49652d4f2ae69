"""Each kind of fusion is ranked with once, and the one that was served is not trained again."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from benchmarks.transfer import ranking
from benchmarks.transfer.context import Context
from newshelf.config import FusionSettings, Settings
from newshelf.transfer.ranking import BlendRanker


@dataclass(frozen=True)
class Trained:
    """Stands for a ranking: from which embeddings and seed."""

    kind: str
    seed: int


@pytest.mark.parametrize("default", ["attention", "late"])
def test_the_other_kinds_are_trained_under_their_setting(monkeypatch, default):
    def embedded(context, catalog, seed):
        return context.settings.fusion, None

    def train_ranking(embeddings, sequences, timestamps, settings, run):
        assert sequences == [[1, 2]]
        assert embeddings.modality_dropout == 0.3
        return Trained(embeddings.kind, run.seed)

    monkeypatch.setattr(ranking, "embedded", embedded)
    monkeypatch.setattr(ranking, "train_ranking", train_ranking)
    settings = Settings(fusion=FusionSettings(kind=default, modality_dropout=0.3))
    nowhere = Path("nowhere")
    context = Context(nowhere, None, nowhere, nowhere, (4,), Console(quiet=True), settings)
    served = BlendRanker(Trained("served", 4), torch.zeros(1))
    split = SimpleNamespace(train=[[1, 2]], train_timestamps=None)
    found = ranking.by_fusion(context, None, split, 4, served)
    assert [ranker.name for ranker in found] == ["early", "late", "attention"]
    for ranker in found:
        expected = "served" if ranker.name == default else ranker.name
        assert ranker.ranking == Trained(expected, 4)
