import json

import pytest

from newshelf.attributes.title_features import Span, TaggedTitle, read_tagged, span_problem
from newshelf.errors import TrainingError

GOOD = '{"title": "红色双肩包", "entities": [[2, 5, "HCCX"], [0, 2, "MISC"]]}'


def test_spans_are_read_in_the_order_of_the_title(tmp_path):
    path = tmp_path / "titles.jsonl"
    path.write_text(f"{GOOD}\n\n{GOOD}\n", encoding="utf-8")
    titles = read_tagged(path)
    assert (
        titles
        == [
            TaggedTitle("红色双肩包", (Span(0, 2, "MISC"), Span(2, 5, "HCCX"))),
        ]
        * 2
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "write {"),
        ('{"title": 7, "entities": []}', "write {"),
        ('{"title": "  ", "entities": []}', "the title is empty"),
        ('{"title": "a"}', "entities must be a list"),
        ('{"title": "ab", "entities": [[0, 1]]}', "is no span"),
        ('{"title": "ab", "entities": [["0", 1, "X"]]}', "is no span"),
        ('{"title": "ab", "entities": [[0, 1, ""]]}', "is no span"),
        ('{"title": "ab", "entities": [[0, 3, "X"]]}', "outside the title of 2"),
        ('{"title": "ab", "entities": [[-1, 1, "X"]]}', "outside the title"),
        ('{"title": "ab", "entities": [[1, 1, "X"]]}', "is empty"),
        ('{"title": "abc", "entities": [[0, 2, "X"], [1, 3, "Y"]]}', "overlaps"),
        ('{"title": "abc", "entities": [[0, 2, "X"], [0, 2, "Y"]]}', "overlaps"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path, line, reason):
    path = tmp_path / "titles.jsonl"
    path.write_text(f"{GOOD}\n{line}\n", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"titles\.jsonl line 2: ") as caught:
        read_tagged(path)
    assert reason in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"nowhere\.jsonl"):
        read_tagged(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TrainingError, match="no tagged titles"):
        read_tagged(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(json.dumps({"title": "é"}).encode() + b"\xe9")
    with pytest.raises(TrainingError, match="not UTF-8"):
        read_tagged(tmp_path / "latin.jsonl")


def test_a_title_cannot_have_spans_that_are_not_its_own():
    assert span_problem("abc", [Span(0, 1, "X"), Span(1, 3, "Y")]) is None
    with pytest.raises(ValueError, match="outside"):
        TaggedTitle("abc", (Span(2, 4, "X"),))
