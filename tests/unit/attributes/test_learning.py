import pytest

from newshelf.attributes.facts import Texts, stated_values
from newshelf.attributes.learn import accepted_values, learn_lexicon
from newshelf.attributes.lexicon import Lexicon, packaged_lexicon


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
