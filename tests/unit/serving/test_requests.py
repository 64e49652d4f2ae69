"""Sentences of searches: prices and attributes that become filters, and fused rankings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.attributes.lexicon import Lexicon, Word, packaged_lexicon
from newshelf.serving.requests import RELAXED, read_filters, read_price, with_read
from newshelf.serving.schemas import Filters, PriceRange

TYPES = (
    Word("Rings", "product_type", "Jewellery > Rings", 0.96),
    Word("项链", "product_type", "Jewellery > Necklaces", 0.9),
    Word("Desks", "product_type", "Home > Desks", 0.9),
    Word("silver", "material", "silver", 0.7),
    Word("silver", "color", "silver", 0.1),
    Word("walnut", "material", "walnut", 0.9),
    Word("gold", "material", "gold", 0.4),
)
_OTHERS = [
    word for word in packaged_lexicon().words if word.phrase not in {"silver", "walnut", "gold"}
]
LEXICON = Lexicon((*TYPES, *_OTHERS), packaged_lexicon().broader)


@pytest.mark.parametrize(
    ("sentence", "left", "low", "high"),
    [
        ("blue ring under 50", "blue ring", None, 50),
        ("rings below $49.99 in blue", "rings in blue", None, 49.99),
        ("walnut desk less than 1,200", "walnut desk", None, 1200),
        ("lamp up to 49,99 €", "lamp", None, 49.99),
        ("over £20 scarf", "scarf", 20, None),
        ("sofa, at least 300 euros", "sofa,", 300, None),
        ("rings between 20 and 50", "rings", 20, 50),
        ("rings from $20 to $50", "rings", 20, 50),
        ("rings $50-20", "rings", 20, 50),
        ("ring under $50 in blue", "ring in blue", None, 50),
        ("ring under 50 in blue", "ring in blue", None, 50),
        ("mug <= 15", "mug", None, 15),
        ("红色 项链 200元以下", "红色 项链", None, 200),
        ("项链 100到200元", "项链", 100, 200),
        ("项链 ￥１００以上", "项链", 100, None),
        ("50元以下的蓝色戒指", "蓝色戒指", None, 50),
        ("预算在三百元以内的项链", "项链", None, 300),
        ("不超过1.5千元的沙发", "沙发", None, 1500),
        ("不低于两百五十块钱的花瓶", "花瓶", 250, None),
        ("便宜于99.9元", "", None, 99.9),
        ("一千二以上的沙发", "沙发", 1200, None),
        ("价格在100到200之间的耳环", "耳环", 100, 200),
        ("五十到一百元的马克杯", "马克杯", 50, 100),
        ("100~200元 手链", "手链", 100, 200),
        ("50元内的戒指", "戒指", None, 50),
        ("1万元起", "", 10000, None),
        ("一块手表 50元以下", "一块手表", None, 50),
        ("UNDER 50 Ring", "Ring", None, 50),
        ("under 50", "", None, 50),
    ],
)
def test_a_price_phrase_is_read_and_taken_out(sentence, left, low, high):
    assert read_price(sentence) == (left, PriceRange(min=low, max=high))


@pytest.mark.parametrize(
    "sentence",
    [
        "rug under 50 cm",
        "whisky over 18 years",
        "shoes 36-40",
        "ssd over 512gb",
        "toys from 2 to 4",
        "under armour 50",
        "wool at least 80%",
        "1920 to 1940 poster",
        "watch under 42mm",
        "thunder 50",
        "低于50厘米的桌子",
        "50厘米以下的地毯",
        "18岁以上",
        "一块手表",
        "三千金 花瓶",
        "50元内衣",
    ],
)
def test_a_number_that_is_no_price_stays(sentence):
    assert read_price(sentence) == (sentence, None)


@pytest.mark.parametrize(
    ("numeral", "value"),
    [
        ("十", 10),
        ("十五", 15),
        ("二十", 20),
        ("一百零五", 105),
        ("一百五", 150),
        ("一千二百三十四", 1234),
        ("两千", 2000),
        ("一万", 10000),
        ("一万二", 12000),
        ("三万五千", 35000),
        ("十二万", 120000),
        ("2.5万", 25000),
        ("3百", 300),
    ],
)
def test_chinese_numerals_are_read(numeral, value):
    assert read_price(f"{numeral}元以下") == ("", PriceRange(max=value))


@given(st.text(max_size=60) | st.text("一二三十百万千两零元以下到内1.0 块", max_size=30))
def test_any_sentence_is_read(sentence):
    left, price = read_price(sentence)
    assert left == " ".join(left.split())
    assert price is None or price.min is not None or price.max is not None


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("blue ring", {"color": ["blue"], "product_type": ["Jewellery > Rings"]}),
        ("Rings in Navy Blue", {"color": ["navy"], "product_type": ["Jewellery > Rings"]}),
        ("红色 项链", {"color": ["red"], "product_type": ["Jewellery > Necklaces"]}),
        ("红色项链", {"color": ["red"], "product_type": ["Jewellery > Necklaces"]}),
        ("walnut desks", {"material": ["walnut"], "product_type": ["Home > Desks"]}),
        ("silver ring", {"material": ["silver"], "product_type": ["Jewellery > Rings"]}),
        ("gold ring", {"product_type": ["Jewellery > Rings"]}),
        ("red or blue", {"color": ["red", "blue"]}),
        ("ring, not blue", {"product_type": ["Jewellery > Rings"]}),
        ("minimal ring", {"style": ["minimal"], "product_type": ["Jewellery > Rings"]}),
        ("something nice", {}),
        ("红项链", {"color": ["red"], "product_type": ["Jewellery > Necklaces"]}),
        ("银项链", {"material": ["silver"], "product_type": ["Jewellery > Necklaces"]}),
        ("不要红色的项链", {"product_type": ["Jewellery > Necklaces"]}),
        (
            "极简纯银项链",
            {
                "material": ["silver"],
                "style": ["minimal"],
                "product_type": ["Jewellery > Necklaces"],
            },
        ),
    ],
)
def test_attributes_of_a_sentence_become_filters(sentence, wanted):
    assert read_filters(sentence, LEXICON, 0.6).model_dump(exclude_none=True) == wanted


def test_the_prices_words_are_no_attributes():
    found = read_filters("walnut desk below 200", LEXICON, 0.6)
    assert found.price == PriceRange(max=200)
    assert found.material == ["walnut"]
    assert found.model_fields_set == {"material", "product_type", "price"}


def test_a_given_filter_replaces_the_sentences_and_stays():
    given = Filters(color=["red"], brand=["Acme"])
    read = read_filters("minimal blue ring under 50", LEXICON, 0.6)
    steps = list(with_read(given, read))
    assert [dropped for _, _, dropped in steps] == [
        [],
        ["style"],
        ["style", "price"],
        ["style", "price", "product_type"],
    ]
    assert all(both.color == ["red"] and both.brand == ["Acme"] for both, _, _ in steps)
    assert all(own.color is None for _, own, _ in steps)
    assert steps[-1][0] == given


def test_without_attributes_there_is_one_step():
    assert list(with_read(Filters(), Filters())) == [(Filters(), Filters(), [])]


def test_filters_are_dropped_in_the_told_order():
    read = read_filters("minimal blue walnut ring under 50", LEXICON, 0.6)
    *_, (_, own, dropped) = with_read(Filters(), read)
    assert tuple(dropped) == RELAXED
    assert own.model_dump(exclude_none=True) == {}
