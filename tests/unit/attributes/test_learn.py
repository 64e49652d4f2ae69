import numpy as np
import pytest

from newshelf.attributes.build import (
    HeadPredictions,
    accepted_values,
    find_exceptions,
    fit_temperature,
    head_facts,
    learn_lexicon,
)
from newshelf.attributes.lexicon import Lexicon, Texts, Word, packaged_lexicon, stated_values


def product(title: str, **cells: str) -> Texts:
    return Texts.of({"title": title, **cells})


def confidence(lexicon: Lexicon, phrase: str, attribute: str, value: str) -> float:
    [word] = [
        word
        for word in lexicon.words
        if (word.phrase, word.attribute, word.value) == (phrase, attribute, value) and word.in_text
    ]
    return word.confidence


def test_confidence_is_the_smoothed_share_of_right_mentions():
    lexicon = learn_lexicon(
        [
            product("Red shirt", color="Red"),
            product("Red shirt again, red", color="Crimson"),
            product("Red herring", color="blue"),
            product("Red, and nobody says"),
        ]
    )
    # Crimson is red by another name; the last product cannot be checked.
    assert confidence(lexicon, "red", "color", "red") == pytest.approx(
        (2 + 4 * 0.8) / (3 + 4), abs=1e-4
    )


def test_wider_and_narrower_values():
    lexicon = learn_lexicon(
        [product("Blue coat", color="navy"), product("Navy coat", color="blue")]
    )
    assert confidence(lexicon, "blue", "color", "blue") == pytest.approx(
        (1 + 4 * 0.8) / 5, abs=1e-4
    )
    assert confidence(lexicon, "navy", "color", "navy") == pytest.approx(
        (0 + 4 * 0.8) / 5, abs=1e-4
    )


def test_stated_values_become_words():
    lexicon = learn_lexicon(
        [
            product(
                "Blurple mug by Corvo", color="Blurple", brand="Corvo", product_type="Home>Mug"
            ),
            product("Corvo bowl", color="blurple"),
        ]
    )
    assert {(m.attribute, m.value) for m in lexicon.find("A blurple mug, Corvo")} == {
        ("color", "blurple"),
        ("brand", "Corvo"),
        ("product_type", "Home > Mug"),
    }


def test_a_type_is_found_by_its_other_names_too():
    lexicon = learn_lexicon(
        [product("Old couch", product_type="Home > Sofas"), product("Vase", product_type="花瓶")]
    )
    for text, value in (("A red settee", "Home > Sofas"), ("红色沙发", "Home > Sofas")):
        assert value in {mention.value for mention in lexicon.find(text)}
    assert {mention.value for mention in lexicon.find("flower vases")} == {"花瓶"}


def test_a_stated_type_is_no_other_name():
    lexicon = learn_lexicon(
        [product("Tee", product_type="Shirts"), product("Blouse", product_type="Blouse")]
    )
    assert [mention.value for mention in lexicon.find("blouse")] == ["Blouse"]


def test_the_last_word_of_a_type_is_trusted_as_far_as_it_is_right():
    products = [product("Oxford shoes", product_type="Shoes > Casual Shoes") for _ in range(9)]
    products += [product("Racing shoes", product_type="Shoes > Sports Shoes") for _ in range(1)]
    lexicon = learn_lexicon(products)
    found = {m.value: m.confidence for m in lexicon.find("Nice shoes")}
    assert found["Shoes"] > 0.8
    assert found["Shoes > Casual Shoes"] == pytest.approx((9 + 4 * 0.2) / 14, abs=1e-4)
    assert found["Shoes > Sports Shoes"] == pytest.approx((1 + 4 * 0.2) / 14, abs=1e-4)


def test_words_that_are_never_right_are_dropped():
    products = [product("Gold edition", color="black", material="steel") for _ in range(200)]
    assert {m.value for m in learn_lexicon(products).find("gold edition")} == set()


def test_numbers_and_marks_are_no_words():
    lexicon = learn_lexicon([product("7 of 9", brand="7", color="-", material="x")])
    base = {(word.phrase, word.attribute) for word in packaged_lexicon().words}
    assert {(word.phrase, word.attribute) for word in lexicon.words} - base == set()


def test_a_catalogue_that_states_nothing_leaves_the_packaged_words():
    assert learn_lexicon([product("Red")]).find("red") == packaged_lexicon().find("red")
    assert learn_lexicon([]).words


@pytest.mark.parametrize(
    ("attribute", "cell", "values"),
    [
        ("color", "Red/white; red", ["red", "white"]),
        ("product_type", " Home>Beds ", ["Home > Beds"]),
        ("brand", " A/B ", ["A/B"]),
        ("color", "  ", []),
        ("color", None, []),
    ],
)
def test_the_values_of_a_cell(attribute, cell, values):
    assert stated_values(attribute, cell) == values


def test_accepted_values_are_folded_and_widened():
    lexicon = packaged_lexicon()
    assert accepted_values(lexicon, "color", ["Navy Blue"]) == {"navy", "blue"}
    assert accepted_values(lexicon, "product_type", ["Home > Beds"]) == {"home", "home > beds"}


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


def drawn(temperature: float, count: int = 4000):
    """Logits whose softmax at ``temperature`` is the truth that targets are drawn from."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(count, 4)) * 3
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    target = np.array([rng.choice(4, p=row) for row in p])
    return logits.astype(np.float32), target


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_targets_is_found(temperature):
    logits, target = drawn(temperature)
    assert fit_temperature(logits, target) == pytest.approx(temperature, rel=0.1)


def test_rows_without_a_target_do_not_count():
    logits, target = drawn(2.0)
    half = np.where(np.arange(len(target)) % 2 == 0, target, -1)
    assert fit_temperature(logits, half) == pytest.approx(
        fit_temperature(logits[::2], target[::2]), rel=1e-6
    )
    assert fit_temperature(logits, np.full(len(target), -1)) == 1.0


def reading(**changed) -> HeadPredictions:
    values = {
        "attribute": "color",
        "classes": ("green", "red"),
        "logits": np.array([[4, 0], [0, 0.1], [0, 5], [9, 0]], dtype=np.float32),
        "held_out": np.full(4, -1),
        "applies_to": np.array([True, True, True, False]),
        **changed,
    }
    return HeadPredictions(**values)


def test_what_the_head_is_sure_of_is_said():
    facts = list(head_facts(["a", "b", "c", "d"], reading(), min_confidence=0.6))
    assert [(fact.item_id, fact.value) for fact in facts] == [("a", "green"), ("c", "red")]
    assert facts[0].confidence == pytest.approx(1 / (1 + np.exp(-4)))
    assert {fact.source for fact in facts} == {"picture+text model"}
