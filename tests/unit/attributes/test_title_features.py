import json

import pytest

from newshelf.attributes.title_tagger import (
    Gazetteer,
    Match,
    Span,
    TaggedTitle,
    read_tagged,
    span_problem,
)
from newshelf.errors import TrainingError

GOOD = '{"title": "红色双肩包", "entities": [[2, 5, "HCCX"], [0, 2, "MISC"]]}'


def tag(gazetteer: Gazetteer, title: str, least_share: float = 0.0) -> list[Span]:
    return [Span(*match[:3]) for match in gazetteer.longest_matches(title, least_share)]


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
        ("{", "Invalid JSON"),
        ("[1]", "an object"),
        ('{"title": 7, "entities": []}', "title: "),
        ('{"title": "  ", "entities": []}', "title: "),
        ('{"title": "a"}', "entities: "),
        ('{"title": "ab", "entities": [[0, 1]]}', "entities.0.2: "),
        ('{"title": "ab", "entities": [["0", 1, "X"]]}', "entities.0.0: "),
        ('{"title": "ab", "entities": [[0, 1, ""]]}', "entities.0.2: "),
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


TITLES = [
    TaggedTitle("红木桌子", (Span(0, 2, "M"), Span(2, 4, "P"))),
    TaggedTitle("木桌子", (Span(1, 3, "P"),)),
    TaggedTitle("桌子腿", (Span(0, 3, "P"),)),
    TaggedTitle("NIKE鞋", (Span(0, 4, "B"), Span(4, 5, "P"))),
]


def test_a_name_knows_its_label_and_how_often_it_is_one():
    gazetteer = Gazetteer.learn(TITLES)
    assert gazetteer.names["桌子"] == ("P", 2 / 3)
    assert gazetteer.names["nike"] == ("B", 1.0)
    assert gazetteer.longest == 4


def test_the_longest_name_from_the_left_wins():
    gazetteer = Gazetteer.learn(TITLES)
    assert tag(gazetteer, "nike桌子腿桌子") == [
        Span(0, 4, "B"),
        Span(4, 7, "P"),
        Span(7, 9, "P"),
    ]
    assert tag(gazetteer, "桌子腿", least_share=1.1) == []
    assert tag(gazetteer, "一二三") == []
    assert tag(gazetteer, "") == []


def test_all_matches_are_what_a_naive_loop_finds():
    gazetteer = Gazetteer.learn(TITLES)
    title = "红木桌子腿鞋"
    naive = [
        Match(start, end, *gazetteer.names[title[start:end]])
        for start in range(len(title))
        for end in range(start + 1, len(title) + 1)
        if title[start:end] in gazetteer.names
    ]
    assert gazetteer.all_matches(title) == naive


def test_a_title_that_lower_casing_lengthens_is_left_alone():
    assert Gazetteer.learn(TITLES).all_matches("İ桌子") == []


def test_nothing_is_learned_from_nothing():
    assert tag(Gazetteer.learn([]), "桌子") == []
