"""Whatever is sent, a predictor answers, and never with a 5xx."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from newshelf.serving.protocol import RawRequest

ACCEPTABLE = {200, 400, 404, 413, 415, 422}
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
texts = st.text(max_size=30)
product = st.fixed_dictionaries(
    {},
    optional={
        "id": texts,
        "title": texts,
        "color": texts | anything,
        "product_type": texts,
        "price": st.floats() | st.integers(),
        "image": texts,
    },
)
instances = st.fixed_dictionaries({"instances": st.lists(product | anything, max_size=4)})
names = st.sampled_from(["body", "image", "title", "price", "x"])
ref = st.sampled_from(["i00", "i07", "i29", "gone"]) | texts | product
filters = st.fixed_dictionaries(
    {},
    optional={
        "product_type": texts | st.lists(texts),
        "color": texts,
        "price": st.fixed_dictionaries({}, optional={"min": st.floats(), "max": st.floats()}),
        "created_after": st.integers(),
        "availability": st.sampled_from(["in_stock", "out_of_stock", "gone"]),
    },
)
ask = st.fixed_dictionaries(
    {},
    optional={
        "history": st.lists(ref, max_size=6) | anything,
        "candidates": st.lists(ref, max_size=6),
        "k": st.integers(-1, 200),
        "filters": filters,
        "exclude": st.lists(texts),
        "diversity": st.floats(0, 1),
        "explain": st.booleans(),
    },
)
media = st.sampled_from(
    ["", "application/json", "image/png", "multipart/form-data", "text/plain", "application/x"]
)


def check(predictor, rows: list[RawRequest]) -> None:
    for row, answer in zip(rows, predictor.predict(rows), strict=True):
        assert answer.status in ACCEPTABLE, (row, answer)
        body = json.loads(answer.body)
        if answer.status != 200:
            assert set(body) == {"code", "message", "field"}


def requests(values) -> list[RawRequest]:
    return [RawRequest({"body": json.dumps(item).encode()}, "application/json") for item in values]


@QUICK
@given(st.lists(ask, min_size=1, max_size=4))
def test_the_recommender_answers_any_json(recommender, values):
    check(recommender, requests(values))


@QUICK
@given(
    st.lists(product | st.builds(lambda many: {"instances": many}, st.lists(product)), min_size=1)
)
def test_the_encoder_answers_any_json(encoder_predictor, values):
    check(encoder_predictor, requests(values))


@QUICK
@given(
    st.dictionaries(st.sampled_from(["body", "image", "title", "price", "x"]), st.binary()), media
)
def test_any_bytes_of_any_type_are_answered(encoder_predictor, recommender, parts, content_type):
    rows = [RawRequest(parts, content_type)]
    check(encoder_predictor, rows)
    check(recommender, rows)
