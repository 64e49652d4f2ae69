"""Embeddings kept by content."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from newshelf.serving.encode import Encoding, EncodingCache, content_key
from newshelf.serving.preprocess import Content

CONTENTS = st.builds(
    Content,
    text=st.text(max_size=4),
    attributes=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
PICTURES = st.none() | st.binary(max_size=3)


def encoding(value: float) -> Encoding:
    return Encoding(np.full(512, value, dtype=np.float32), {"color": ("red", 0.5)})


@given(CONTENTS, PICTURES, CONTENTS, PICTURES)
def test_keys_are_equal_exactly_when_contents_are(content, picture, other, other_picture):
    same = (content, picture) == (other, other_picture)
    assert (content_key(content, picture) == content_key(other, other_picture)) == same


def test_a_text_and_a_picture_are_not_mistaken_for_each_other():
    attributes = (0,)
    assert content_key(Content("a\1b", attributes), None) != content_key(
        Content("a", attributes), b"b"
    )
    assert content_key(Content("a", attributes), None) != content_key(Content("a", attributes), b"")
    data = b"picture"
    assert content_key(Content("", ()), data) == content_key(Content("", ()), bytearray(data))


def test_what_is_kept_holds_no_batch_and_cannot_be_changed():
    cache = EncodingCache(100_000)
    batch = np.ones((64, 512), dtype=np.float32)
    cache.put(b"k", Encoding(batch[3], {}))
    kept = cache.get(b"k")
    assert kept.embedding.base is None
    assert not kept.embedding.flags.writeable
    batch[:] = 0
    assert (kept.embedding == 1).all()


def test_the_least_recently_used_makes_room():
    cache = EncodingCache(3 * (512 * 4 + 1_500))
    for number, key in enumerate((b"a", b"b", b"c")):
        cache.put(key, encoding(number))
    assert cache.get(b"a").embedding[0] == 0
    cache.put(b"d", encoding(3))
    assert cache.get(b"b") is None
    assert [cache.get(key).embedding[0] for key in (b"a", b"c", b"d")] == [0, 2, 3]


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(0, 40_000))
def test_it_never_takes_more_than_its_bytes(numbers, most):
    cache = EncodingCache(most)
    for number in numbers:
        cache.put(bytes([number]), encoding(number))
        assert cache._kept.currsize <= most
