from newshelf.attributes.facts import Texts
from newshelf.attributes.learn import find_exceptions, learn_lexicon
from newshelf.attributes.lexicon import Lexicon, Word

RED = Word("red", "color", "red", 0.8)
LEXICON = Lexicon([RED, Word("red", "style", "loud", 0.7), Word("black", "color", "black", 0.8)])
RIGHT, WRONG = {"color": {"red"}}, {"color": {"blue"}}


def said(texts) -> dict[str, set[tuple[str, str, float]]]:
    found: dict[str, set[tuple[str, str, float]]] = {}
    for word in find_exceptions(texts, LEXICON):
        found.setdefault(word.phrase, set()).add((word.attribute, word.value, word.confidence))
    return found


def test_a_word_that_is_wrong_beside_a_neighbour_is_an_exception():
    texts = [("Men Red Tape shoe", WRONG)] * 5 + [("Red tape shoe", RIGHT)]
    texts += [("Men red shoe", RIGHT)] * 9
    assert said(texts) == {
        "red tape": {("color", "red", round(1 / 6, 4)), ("style", "loud", 0.7), ("-", "", 1.0)}
    }


def test_what_is_rare_or_mostly_right_is_none():
    assert said([("Red tape", WRONG)] * 5) == {}
    assert said([("Red tape", WRONG)] * 5 + [("Red tape", RIGHT)] * 5) == {}
    assert said([("Red tape", {})] * 20) == {}


def test_two_values_side_by_side_are_two_values():
    assert said([("Black red shoe", {"color": {"black"}})] * 20).keys() == {"red shoe"}


def test_learning_drops_what_the_exception_denies():
    products = [
        Texts.of({"title": "Red Tape brogues", "color": "Brown"}),
        Texts.of({"title": "Red shoes", "color": "Red"}),
    ] * 20
    lexicon = learn_lexicon(products)
    assert lexicon.find("Red tape loafers") == [] or all(
        mention.confidence < 0.3 for mention in lexicon.find("Red tape loafers")
    )
    assert [mention.value for mention in lexicon.find("Red loafers")] == ["red"]
