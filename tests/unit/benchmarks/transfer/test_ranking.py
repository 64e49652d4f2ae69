"""Each kind of fusion is ranked with once, under its own setting."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmarks.transfer import ranking
from benchmarks.transfer.command import TransferContext
from newshelf.config import FusionSettings, Settings


@dataclass(frozen=True)
class Trained:
    """Stands for a ranking: from which embeddings and seed."""

    kind: str
    seed: int


@pytest.mark.parametrize("default", ["attention", "late"])
def test_each_kind_is_trained_under_its_setting(monkeypatch, default):
    def embedded(context, catalog, seed):
        return context.settings.fusion, None

    def train_ranking(embeddings, data, settings, run):
        assert data == [[1, 2]]
        assert embeddings.modality_dropout == 0.3
        return Trained(embeddings.kind, run.seed)

    monkeypatch.setattr(ranking, "embedded", embedded)
    monkeypatch.setattr(ranking, "train_ranking", train_ranking)
    settings = Settings(fusion=FusionSettings(kind=default, modality_dropout=0.3))
    nowhere = Path("nowhere")
    context = TransferContext(nowhere, None, nowhere, nowhere, (4,), Console(quiet=True), settings)
    split = SimpleNamespace(train=[[1, 2]])
    found = ranking.by_fusion(context, None, split, 4)
    assert [ranker.name for ranker in found] == ["early", "late", "attention"]
    assert [ranker.ranking for ranker in found] == [Trained(ranker.name, 4) for ranker in found]
