"""The contract of ``Accept-Language`` over the gateway's routes."""

import httpx
import pytest

from tests.gateways import Gateway, StartGateway


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    return start_gateway()


def both(gateway: Gateway, method: str, path: str, **sent: object) -> list[httpx.Response]:
    return [
        gateway.http.request(method, path, headers={"Accept-Language": language}, **sent)  # type: ignore[arg-type]
        for language in ("en", "zh-CN, en;q=0.5")
    ]


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "message"),
    [
        ("POST", "/v1/recommend", {"json": {"unit": "u", "k": "x"}}, 422, "必须是整数"),
        ("POST", "/v1/recommend", {"content": b""}, 400, "请求体为空"),
        ("POST", "/v1/search", {"json": {}}, 422, "搜索需要文本、图片，或两者"),
        ("GET", "/v1/items/none", {}, 404, "没有商品 'none'"),
        ("GET", "/v1/nowhere", {}, 404, "没有此路径"),
        ("PUT", "/v1/recommend", {}, 405, "不支持此方法"),
        ("POST", "/v1/encode", {"json": {"title": 7}}, 422, "必须是字符串，而不是数字"),
    ],
)
def test_an_error_differs_in_its_sentence_alone(
    gateway: Gateway, method: str, path: str, sent: dict[str, object], status: int, message: str
) -> None:
    english, chinese = both(gateway, method, path, **sent)
    assert english.status_code == chinese.status_code == status
    assert english.headers["content-language"] == "en"
    assert chinese.headers["content-language"] == "zh"
    assert english.headers["vary"] == chinese.headers["vary"] == "accept-language"
    one, other = english.json(), chinese.json()
    assert message in other.pop("message")
    assert one.pop("message").isascii()
    assert one == other


def test_a_row_of_a_batch_is_refused_in_chinese(gateway: Gateway) -> None:
    event = {"event_id": "e1", "event_type": "click", "item_id": "item-001"}
    other = event | {"event_id": "e2", "request_id": "none"}
    events = [event | {"unit": "u"}, {"event_id": "e3"}, other]
    _, chinese = both(gateway, "POST", "/v1/feedback", json={"events": events})
    messages = [row.get("message") for row in chinese.json()["results"]]
    assert messages == [None, "此字段为必填项（另有 1 处）", "没有此 request_id 的结果"]


def test_an_answer_without_a_sentence_is_the_same(gateway: Gateway) -> None:
    english, chinese = both(gateway, "POST", "/v1/recommend", json={"unit": "u1", "k": 3})
    one, other = english.json(), chinese.json()
    assert one.pop("request_id") != other.pop("request_id")
    assert one == other
    assert chinese.headers["content-language"] == "zh"


def test_without_the_header_answers_are_english(gateway: Gateway) -> None:
    answer = gateway.http.get("/v1/nowhere")
    assert answer.headers["content-language"] == "en"
    assert answer.json()["message"].endswith("see /docs")


def test_the_description_is_english(gateway: Gateway) -> None:
    for path in ("/openapi.json", "/healthz"):
        answer = gateway.http.get(path, headers={"Accept-Language": "zh"})
        assert answer.headers["content-language"] == "en"
