from newshelf.attributes.title_features import Gazetteer, Match, Span, TaggedTitle

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
    assert gazetteer.tag("nike桌子腿桌子") == [
        Span(0, 4, "B"),
        Span(4, 7, "P"),
        Span(7, 9, "P"),
    ]
    assert gazetteer.tag("桌子腿", least_share=1.1) == []
    assert gazetteer.tag("一二三") == []
    assert gazetteer.tag("") == []


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
    assert Gazetteer.learn([]).tag("桌子") == []
