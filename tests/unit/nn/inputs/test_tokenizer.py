import numpy as np
from tokenizers import Tokenizer as Plain

from newshelf.nn.inputs import Tokenizer, pad_tokens
from tests.unit.export.tiny_checkpoint import tokenizer_json

CLS, SEP, UNK = 2, 3, 1


def test_a_batch_is_padded_to_its_longest(tokenizer):
    ids, mask = tokenizer.batch(["jade", "gold linen ring"])
    assert ids.tolist() == [[CLS, 4, SEP, 0, 0], [CLS, 5, 6, 7, SEP]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert ids.dtype == mask.dtype == np.int64


def test_a_long_text_is_cut_and_keeps_its_end_mark(tokenizer):
    ids, mask = tokenizer.batch(["jade " * 100_000])
    assert ids.tolist() == [[CLS, 4, 4, 4, 4, SEP]]
    assert mask.tolist() == [[1] * 6]


def test_an_empty_text_is_the_marks_alone(tokenizer):
    ids, mask = tokenizer.batch(["", "jade"])
    assert ids.tolist() == [[CLS, SEP, 0], [CLS, 4, SEP]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_an_unknown_word_is_one(tokenizer):
    assert tokenizer.batch(["jade 寿司 gold"])[0].tolist() == [[CLS, 4, UNK, 5, SEP]]


def test_the_files_own_length_and_padding_do_not_count(tmp_path):
    """MiniLM's file pads every text to 128 tokens."""
    fixed = Plain.from_str(tokenizer_json())
    fixed.enable_padding(length=128, pad_id=9, direction="left")
    fixed.enable_truncation(3)
    path = tmp_path / "tokenizer.json"
    fixed.save(str(path))
    ids, mask = Tokenizer(path, 10, pad_token_id=0).batch(["jade gold ring", "jade"])
    assert ids.tolist() == [[CLS, 4, 5, 7, SEP], [CLS, 4, SEP, 0, 0]]
    assert mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_another_padding_token(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json())
    ids, mask = Tokenizer(path, 10, pad_token_id=11).batch(["jade gold", "jade"])
    assert ids[1].tolist() == [CLS, 4, SEP, 11]
    assert mask[1].tolist() == [1, 1, 1, 0]


def test_texts_are_tokenized_together_and_padded_apart(tokenizer):
    rows = tokenizer.tokens(["jade", "gold linen ring", ""])
    assert rows == [[CLS, 4, SEP], [CLS, 5, 6, 7, SEP], [CLS, SEP]]
    ids, mask = pad_tokens([rows[0], rows[2]], 9)
    assert ids.tolist() == [[CLS, 4, SEP], [CLS, SEP, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]
