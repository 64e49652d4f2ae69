"""``ProductEncoder`` around a graph that is only arithmetic."""

import json
import time

import numpy as np
import pytest

from newshelf.catalog.schema import ENCODABLE, Product
from newshelf.config import Limits
from newshelf.errors import BadPicture, DeadlineExceeded, InvalidField, NewshelfError
from newshelf.nn.inputs import Tokenizer
from newshelf.serving.encode import Encoding, EncodingCache, ProductEncoder
from newshelf.serving.preprocess import InputBuilder, open_reader
from newshelf.serving.products import ProductInput, parse_products
from newshelf.serving.protocol import RawRequest
from newshelf.serving.runtimes.base import Device
from newshelf.serving.trace import RecordingObserver, StageTimer


class Counting:
    """Embeds each row as (mean of its picture, its first word, 1, …), and counts its runs."""

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[int] = []
        self.poison = poison

    def run(self, inputs):
        batch = len(inputs["attributes"])
        self.batches.append(batch)
        embedding = np.ones((batch + 1, 512), dtype=np.float32)
        if len(inputs["image"]):
            embedding[inputs["image_row"], 0] = inputs["image"].mean(axis=(1, 2, 3))
        embedding[inputs["text_row"], 1] = inputs["input_ids"][:, :2][:, -1]
        if self.poison is not None:
            embedding[self.poison] = np.nan
        return {
            "embedding": embedding[:batch],
            "color_logits": np.tile(np.float32([0.0, 2.0]), (batch, 1)),
            "material_logits": np.tile(np.float32([5.0, 0.0, 0.0]), (batch, 1)),
        }


@pytest.fixture
def build(spec, bundle):
    def make(runtime, step=64, pictures=64, cache=None, **changed):
        changed_spec = spec.encoder.model_copy(update=changed)
        text = changed_spec.text
        tokenizer = Tokenizer(bundle / "tokenizer.json", 16, 0) if text else None
        return ProductEncoder(
            changed_spec,
            runtime,
            InputBuilder(changed_spec, tokenizer),
            open_reader(changed_spec.image, Device(), max_pixels=1_000_000, threads=2),
            max_forward_batch=step,
            max_forward_pictures=pictures,
            cache=cache,
        )

    return make


def given(title=None, picture=None, at="", deadline_s=None) -> ProductInput:
    return ProductInput(Product(title=title), picture, at, deadline_s)


def test_labels_are_the_likeliest_classes_with_probabilities(build):
    [result] = build(Counting()).encode([given("ring")], StageTimer())
    assert result.labels["color"] == ("red", pytest.approx(0.880797, abs=1e-6))
    assert result.labels["material"][0] == "jade"


@pytest.mark.parametrize(("step", "forwards"), [(64, 1), (2, 3), (5, 1)])
def test_products_go_through_in_turns(build, step, forwards):
    runtime = Counting()
    words = ["jade", "gold", "linen", "ring", "shirt"]
    results = build(runtime, step).encode([given(word) for word in words], StageTimer())
    assert sum(runtime.batches) == 5
    assert len(runtime.batches) == forwards
    assert max(runtime.batches) <= step
    assert [result.embedding[1] for result in results] == [4, 5, 6, 7, 8]


def test_failed_products_leave_no_gap(build, picture):
    runtime = Counting()
    inputs = [
        given("jade"),
        given(picture=b"damaged", at="instances[1]"),
        given("gold", picture()),
        given("ring", b""),
        given(picture=picture(), at="instances[4]"),
    ]
    results = build(runtime).encode(inputs, StageTimer())
    assert sum(runtime.batches) == 3
    assert [type(result) for result in results] == [
        Encoding, BadPicture, Encoding, BadPicture, Encoding,
    ]  # fmt: skip
    assert results[1].field == "instances[1].image"
    assert [results[at].embedding[1] for at in (0, 2, 4)] == [4, 5, 1]
    assert results[2].embedding[0] == results[4].embedding[0] != 1 == results[0].embedding[0]


def test_nothing_is_run_when_nothing_is_left(build):
    runtime = Counting()
    [result] = build(runtime).encode([given(picture=b"damaged")], StageTimer())
    assert isinstance(result, BadPicture)
    assert build(runtime).encode([], StageTimer()) == []
    assert runtime.batches == []


@pytest.mark.parametrize("pictures", [1, 2, 3, 7])
def test_pictures_may_go_through_several_forwards(build, picture, pictures):
    inputs = [given(picture=picture(size=(20 + at, 9), mode="L")) for at in range(7)]
    together = build(Counting()).encode(inputs, StageTimer())
    runtime = Counting()
    split = build(runtime, pictures=pictures).encode(inputs, StageTimer())
    found, wanted = ([result.embedding[0] for result in many] for many in (split, together))
    assert found == wanted
    assert len(set(wanted)) > 1
    assert max(runtime.batches) <= pictures


def test_the_next_pictures_are_on_their_way_while_a_forward_runs(build, picture):
    """When the first pictures are in the graph, the second group has been started."""
    started = []

    class Watching(Counting):
        def run(self, inputs):
            started.append(list(begun))
            return super().run(inputs)

    encoder = build(Watching(), pictures=2)
    begun: list[int] = []
    start = encoder.reader.start

    def watched(inputs):
        begun.append(len(inputs))
        return start(inputs)

    encoder.reader.start = watched
    encoder.encode([given(picture=picture(size=(20 + at, 9))) for at in range(6)], StageTimer())
    assert started == [[2, 2], [2, 2, 2], [2, 2, 2]]


def test_an_embedding_that_is_not_finite_is_an_error_of_its_row(build):
    results = build(Counting(poison=1)).encode([given("a"), given("of"), given("a")], StageTimer())
    assert [isinstance(result, Encoding) for result in results] == [True, False, True]
    assert isinstance(results[1], NewshelfError)
    assert results[1].http_status == 500


def test_a_model_without_an_image_tower_wants_text(build, picture):
    inputs = [given("ring", picture()), given(picture=picture(), at="history[0]")]
    results = build(Counting(), image=None).encode(inputs, StageTimer())
    assert isinstance(results[0], Encoding)
    assert isinstance(results[1], InvalidField)
    assert results[1].field == "history[0]"
    assert "title or a description" in results[1].message


def test_a_model_without_a_text_tower_wants_a_picture(build, picture):
    inputs = [given("ring", picture()), given("ring")]
    results = build(Counting(), text=None).encode(inputs, StageTimer())
    assert isinstance(results[0], Encoding)
    assert isinstance(results[1], InvalidField)
    assert "needs an image" in results[1].message


def measured(stages) -> dict[str, float]:
    recorder = RecordingObserver()
    stages.report(recorder, 1)
    return {metric.name: value for metric, value in recorder.drain()}


def test_what_was_encoded_before_is_not_encoded_again(build, picture):
    runtime = Counting()
    encoder = build(runtime, cache=EncodingCache(1_000_000))
    inputs = [given("ring", picture()), given("jade"), given("ring")]
    first = encoder.encode(inputs, StageTimer())
    assert sum(runtime.batches) == 3
    stages = StageTimer()
    again = encoder.encode([*inputs[::-1], given("ring", picture("JPEG"))], stages)
    assert sum(runtime.batches) == 4
    for one, other in zip(first, again[2::-1], strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
        assert one.labels == other.labels
    counts = measured(stages)
    assert counts["newshelf_embedding_cache_hits_total"] == 3
    assert counts["newshelf_embedding_cache_misses_total"] == 1


def test_without_a_cache_nothing_is_kept_or_counted(build):
    runtime = Counting()
    encoder = build(runtime)
    stages = StageTimer()
    for _ in range(2):
        encoder.encode([given("ring")], stages)
    assert runtime.batches == [1, 1]
    assert not [name for name in measured(stages) if "cache" in name]


def test_errors_are_not_kept(build):
    runtime = Counting(poison=0)
    encoder = build(runtime, cache=EncodingCache(1_000_000))
    for _ in range(2):
        results = encoder.encode([given("ring"), given(picture=b"damaged")], StageTimer())
        assert not any(isinstance(result, Encoding) for result in results)
    assert runtime.batches == [1, 1]


def test_a_row_that_is_late_is_not_computed(build, picture):
    runtime = Counting()
    late = time.monotonic() - 0.005
    results = build(runtime).encode(
        [
            given("ring", deadline_s=late),
            given("jade", deadline_s=time.monotonic() + 600),
            given(picture=picture(size=(20, 9)), deadline_s=late),
            given(picture=picture(size=(21, 9)), deadline_s=time.monotonic() + 600),
        ],
        StageTimer(),
    )
    assert [type(result) for result in results] == [
        DeadlineExceeded, Encoding, DeadlineExceeded, Encoding,
    ]  # fmt: skip
    assert sum(runtime.batches) == 2


def test_a_deadline_that_passes_during_decoding_is_seen_before_the_forward(
    build, picture, monkeypatch
):
    """Its batch-mate's picture still goes to the right row."""
    runtime = Counting()
    encoder = build(runtime)
    data = picture(size=(40, 40), mode="L")
    clock = [time.monotonic()]
    monkeypatch.setattr("newshelf.serving.protocol.time.monotonic", lambda: clock[0])
    start = encoder.reader.start

    def slow(inputs):
        wait = start(inputs)

        def wait_long():
            read = wait()
            clock[0] += 1
            return read

        return wait_long

    encoder.reader.start = slow
    soon, never = clock[0] + 0.5, clock[0] + 600
    results = encoder.encode(
        [
            given(picture=picture(), deadline_s=soon),
            given(picture=data, deadline_s=never),
        ],
        StageTimer(),
    )
    assert isinstance(results[0], DeadlineExceeded)
    monkeypatch.undo()
    [alone] = build(Counting()).encode([given(picture=data)], StageTimer())
    assert results[1].embedding[0] == alone.embedding[0]
    assert runtime.batches == [1]


def test_equal_products_share_one_row(build, picture):
    one, other = picture(size=(20, 9)), picture(size=(21, 9))
    inputs = [
        given("jade", one),
        given("gold"),
        given("jade", bytearray(one)),
        given("jade", other),
        given("gold"),
        given("jade"),
        given("gold"),
    ]
    runtime, stages, recorder = Counting(), StageTimer(), RecordingObserver()
    cache = EncodingCache(1_000_000)
    results = build(runtime, cache=cache).encode(inputs, stages)
    assert sum(runtime.batches) == 4
    assert results[0] is results[2]
    assert results[1] is results[4] is results[6]
    alone = [build(Counting()).encode([item], StageTimer())[0] for item in inputs]
    for result, wanted in zip(results, alone, strict=True):
        np.testing.assert_array_equal(result.embedding, wanted.embedding)
        assert result.labels == wanted.labels
    stages.report(recorder, 1)
    counts = {metric.name: value for metric, value in recorder.taken}
    assert counts["newshelf_embedding_cache_hits_total"] == 3
    assert counts["newshelf_embedding_cache_misses_total"] == 4


def test_attributes_tell_products_apart(build):
    inputs = [
        ProductInput(Product(title="ring", color=color), None, "") for color in ("red", "red", None)
    ]
    runtime = Counting()
    build(runtime).encode(inputs, StageTimer())
    assert runtime.batches == [2]


def test_of_equal_products_the_latest_deadline_counts(build, picture):
    late, soon = time.monotonic() - 0.005, time.monotonic() + 60
    inputs = [
        given("ring", deadline_s=late),
        given("ring", deadline_s=soon),
        given("gold", picture(), deadline_s=late),
        given("gold", picture()),
        given("jade", deadline_s=late),
        given("jade", deadline_s=late),
    ]
    results = build(Counting()).encode(inputs, StageTimer())
    assert [type(result) for result in results] == [*[Encoding] * 4, *[DeadlineExceeded] * 2]


def test_each_of_equal_products_has_its_own_place_in_an_error(build):
    places = ["instances[0]", "", "history[2]"]
    results = build(Counting()).encode([given(picture=b"no", at=at) for at in places], StageTimer())
    assert [result.field for result in results] == [
        "instances[0].image",
        "image",
        "history[2].image",
    ]
    assert {type(result) for result in results} == {BadPicture}


THAI = "\u0e41\u0e2b\u0e27\u0e19"


@pytest.mark.parametrize("title", [THAI, f"{THAI} {THAI}!", f"{THAI} \U0001f48d 120"])
def test_a_text_that_cannot_be_read_is_absent(build, picture, title):
    """Row 1 of the embedding is the text's first word: 1 without a text."""
    inputs = [
        given(title, picture()),
        given("ring"),
        given(title, at="instances[2]"),
        ProductInput(Product(title=title, color="red"), None, ""),
        given(f"{title} ring"),
    ]
    runtime, stages, recorder = Counting(), StageTimer(), RecordingObserver()
    results = build(runtime).encode(inputs, stages)
    assert sum(runtime.batches) == 4
    assert [results[at].embedding[1] for at in (0, 1, 3)] == [1, 7, 1]
    assert [results[at].text_unread for at in (0, 1, 3, 4)] == [True, False, True, False]
    assert isinstance(results[2], InvalidField)
    assert results[2].field == "instances[2]"
    assert "text tower" in results[2].message
    stages.report(recorder, 1)
    assert ("newshelf_unread_texts_total", 3) in [(m.name, value) for m, value in recorder.taken]


def test_a_kept_encoding_says_that_its_text_was_not_read(build, picture):
    encoder = build(Counting(), cache=EncodingCache(100_000))
    for _ in range(2):
        [result] = encoder.encode([given(THAI, picture())], StageTimer())
        assert result.text_unread


@pytest.mark.parametrize("towers", [{}, {"image": None}, {"text": None}])
def test_every_encoder_can_encode_the_question_whether_it_answers(build, towers):
    raw = RawRequest({"body": json.dumps(ENCODABLE).encode()}, "application/json")
    [item], _ = parse_products(raw, Limits())
    [result] = build(Counting(), **towers).encode([item], StageTimer())
    assert isinstance(result, Encoding)
