"""The choice of a packaged text tower by the catalogue's texts, and torch's threads."""

import os

import pytest
import torch

from newshelf.config import Settings, TextTowerSettings
from newshelf.training import backbone
from newshelf.training.backbone import build_backbone, set_up_torch

ENGLISH = ["Jade ring", "Gold lamp", "Linen shirt", "Red dress"]


@pytest.fixture
def chosen(write_catalog, said, tmp_path, monkeypatch):
    """The weights that are loaded for these titles."""

    def choose(titles: list[str], **settings: object) -> str:
        asked: list[str] = []

        def load(text: TextTowerSettings) -> None:
            asked.append(text.weights)
            raise LookupError

        monkeypatch.setattr(backbone, "load_text_tower", load)
        items = [{"id": f"i{at}", "title": title} for at, title in enumerate(titles)]
        text = TextTowerSettings(**settings)
        with pytest.raises(LookupError):
            build_backbone(
                write_catalog(items=items),
                Settings(image=None, text=text),
                {},
                tmp_path,
                said.console,
            )
        return asked[0]

    return choose


def test_english_titles_get_the_english_tower(chosen, said):
    assert chosen(ENGLISH) == "packaged"
    assert "text tower: packaged; the English one cannot read 0% of 4 texts" in said.text


@pytest.mark.parametrize("foreign", ["翡翠戒指", "золотое кольцо", "แหวนทองคำ"])
def test_foreign_titles_get_the_multilingual_tower(chosen, said, foreign):
    assert chosen([*ENGLISH, foreign]) == "packaged-multilingual"
    assert "cannot read 20% of 5 texts, and 10% are allowed" in said.text


def test_a_few_foreign_titles_are_allowed_by_setting(chosen):
    assert chosen([*ENGLISH, "翡翠戒指"], max_unreadable=0.2) == "packaged"


def test_named_weights_are_not_questioned(chosen, said):
    assert chosen(["翡翠戒指"], weights="packaged") == "packaged"
    assert chosen(ENGLISH, weights="packaged-multilingual") == "packaged-multilingual"
    assert "text tower:" not in said.text


@pytest.mark.parametrize(
    ("told", "threads", "used"), [("1", 0, 1), ("1", 3, 3), (None, 0, os.cpu_count()), (None, 3, 3)]
)
def test_torch_takes_every_core_unless_told(monkeypatch, told, threads, used):
    """The variable is read when torch starts; a call takes nothing back."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    torch.set_num_threads(1)
    deterministic = torch.are_deterministic_algorithms_enabled()
    set_up_torch(Settings(threads=threads))
    torch.use_deterministic_algorithms(deterministic)
    assert torch.get_num_threads() == used
