"""Towers of a few thousand random weights, saved as a user would have them."""

from pathlib import Path

import timm
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from newshelf.config import ImageTowerSettings, TextTowerSettings
from tests.unit.export.tiny_checkpoint import tiny_spec, tokenizer_json


def save_text_tower(folder: Path) -> TextTowerSettings:
    """A BERT of 12 words with its tokenizer."""
    torch.manual_seed(11)
    config = BertConfig(**tiny_spec().encoder.text.architecture)
    BertModel(config).save_pretrained(folder)
    file = folder / "tokenizer.json"
    file.write_text(tokenizer_json())
    PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="[PAD]").save_pretrained(folder)
    return TextTowerSettings(weights=str(folder), max_tokens=20)


def save_image_tower(path: Path) -> ImageTowerSettings:
    """A small ResNet with its classifier."""
    torch.manual_seed(12)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return ImageTowerSettings(architecture="test_resnet", weights=str(path), size=32)
