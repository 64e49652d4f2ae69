"""Languages of answers: the header's choice, templates, and values inside sentences."""

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic_core._pydantic_core import list_all_errors

import newshelf
from newshelf.errors import InvalidField
from newshelf.gateway.translation import in_language, preferred_language, translated
from newshelf.serving.encoder_predictor import _TEXT_UNREAD
from newshelf.serving.kinds import POPULAR, like_history, popular_in
from newshelf.serving.resolve import Facts
from newshelf.serving.schemas import validate

CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("ZH-hans-cn", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("en;q=0.5, zh;q=0.7", "zh"),
        ("zh, en", "zh"),
        ("en, zh", "en"),
        ("fr, de;q=0.9", "en"),
        ("fr, zh;q=0.1", "zh"),
        ("*", "en"),
        ("*;q=0.5, zh;q=0.9", "zh"),
        ("en;q=0.2, *;q=0.5", "zh"),
        ("zh;q=0, *", "en"),
        ("zh;q=0", "en"),
        ("zh-TW;q=0.2, zh-CN;q=0.9, en;q=0.5", "zh"),
        ("zh;q=7, en;q=0.1", "en"),
        ("zho", "en"),
        ("", "en"),
        (",;;q=,zh;level=1", "en"),
        ("\xff\x00", "en"),
        ("a," * 50_000 + "zh", "en"),
    ],
)
def test_the_header_chooses(accept: str, language: str) -> None:
    assert preferred_language(accept.encode("latin-1")) == language


@given(st.binary(max_size=60) | st.text("zhen*,;=q.01- ", max_size=60).map(str.encode))
def test_any_header_is_read(accept: bytes) -> None:
    assert preferred_language(accept) in ("en", "zh")


def rows() -> Iterator[tuple[str, str, str]]:
    path = Path(newshelf.__file__).parent / "gateway" / "messages_zh.tsv"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            section, english, chinese = line.split("\t")
            yield section, english, chinese


def test_a_translation_fills_what_its_template_names() -> None:
    for section, english, chinese in rows():
        holes = [set(re.findall(r"\{(\w+)\}", text)) for text in (english, chinese)]
        assert holes[0] == holes[1], english
        assert CHINESE.search(chinese) or section in ("kind",) or "message" in holes[1]


def sentences() -> str:
    """Return the texts in the code, where what is filled in separates them, and pydantic's."""
    texts = [one["message_template_python"] for one in list_all_errors()]
    texts += [f"{status.phrase}; see /docs" for status in HTTPStatus]
    texts.append("this is no picture; send one of ")
    for path in Path(newshelf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(text.replace("Input should be", "must be") for text in texts)


def test_every_template_is_of_a_sentence_that_is_said() -> None:
    said = sentences()
    unsaid = [
        english
        for section, english, _ in rows()
        # Reasons, and what pydantic says of lists, have tests of their own.
        if section != "reason" and not english.startswith("List ")
        if any(text.strip(": 's") not in said for text in re.split(r"\{\w+\}", english))
    ]
    assert not unsaid, "\n".join(unsaid)


class _Body(BaseModel):
    model_config = {"extra": "forbid"}

    k: int = Field(1, ge=1, le=9)
    title: str = ""
    ids: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"k": "x"}, "必须是整数，无法解析该字符串"),
        ({"k": 0}, "必须大于或等于 1"),
        ({"title": 3}, "必须是字符串，而不是数字"),
        ({"ids": []}, "至少需要 1 项，实际为 0 项"),
        ({"ids": ["a", "b", "c"]}, "最多允许 2 项，实际为 3 项"),
        ({"ids": None}, "必须是数组，而不是null"),
        ({"histroy": 1}, "未知字段 'histroy'；您是否想写 'history'？"),
        ({"k": 0, "title": 3}, "必须大于或等于 1（另有 1 处）"),
    ],
)
def test_a_field_is_refused_in_chinese(body: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        validate(_Body, body)
    assert translated("invalid_field", caught.value.message, "zh") == message


def facts(title: str | None, **fields: str) -> Facts:
    columns = dict.fromkeys(("product_type", "brand", "color", "material"))
    return Facts(id=None, title=title, **columns | fields, known={"style": ["minimal"]})


@pytest.mark.parametrize(
    ("reason", "chinese"),
    [
        (
            like_history(
                facts("x", product_type="Jewellery > Rings", material="Jade", brand="Alder, & Co"),
                facts(
                    "Ring", product_type="Jewellery > Rings", material="jade", brand="alder, & co"
                ),
            ),
            "与您浏览过的“Ring”相似：同为戒指，同一品牌 Alder, & Co，同样的材质：翡翠"
            "，同样的极简风格",
        ),
        (
            like_history(facts("x", color="藏青色"), facts("红’的", color="藏青色")),
            "与您浏览过的“红’的”相似：同样的颜色：藏青色，同样的极简风格",
        ),
        (like_history(facts(None), facts(None)), "与您浏览过的商品相似：同样的极简风格"),
        (popular_in("Jewellery > Rings", ["Jewellery > Rings"]), "“珠宝 > 戒指”中的热门商品"),
        (popular_in("珠宝 > 戒指", ["珠宝"]), "“珠宝”中的热门商品"),
        (popular_in("Gadgets", ["gadgets"]), "“gadgets”中的热门商品"),
        (POPULAR, "其他顾客也喜欢"),
    ],
)
def test_reasons_name_values_in_chinese(reason: str, chinese: str) -> None:
    assert translated("reason", reason, "zh") == chinese


def test_a_sentence_without_a_template_stays() -> None:
    assert translated("unavailable", "the moon is full", "zh") is None
    assert translated("invalid_field", "the moon is full (and 2 more)", "zh") is None
    body = b'{"code":"unavailable","message":"the moon is full","field":null}'
    assert in_language(body, "zh") == body


def test_rows_and_warnings_are_translated() -> None:
    problem = {"code": "bad_picture", "message": "the picture cannot be decoded", "status": 422}
    sent = {
        "predictions": [{"warnings": [_TEXT_UNREAD, "new"], "labels": {}}, {"error": problem}],
        "items": [{"id": "1", "reason": "popular with other shoppers"}, {"id": "2"}],
    }
    answer = orjson.loads(in_language(orjson.dumps(sent), "zh"))
    encoded, failed = answer["predictions"]
    assert encoded["warnings"][0].startswith("文本视为缺失")
    assert encoded["warnings"][1] == "new"
    assert failed["error"] == {**problem, "message": "图片无法解码"}
    assert answer["items"] == [{"id": "1", "reason": "其他顾客也喜欢"}, {"id": "2"}]


def test_what_a_shop_wrote_is_not_translated() -> None:
    sent = b'{"id":"1","attributes":{"reason":"popular with other shoppers","message":7}}'
    assert in_language(sent, "zh") == sent
