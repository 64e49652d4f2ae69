"""Text without markup, by the one function of training and serving."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from newshelf.catalog.catalog import read_catalog
from newshelf.catalog.clean import clean_text

LINEN = "Soft red linen, washable, with pockets."
MARKED_UP = {
    '<div class="product-description"><p style="margin:0px">Soft red linen, washable, with '
    "pockets.</p></div>": LINEN,
    "Soft red linen&nbsp;&ndash; washable&#44; with pockets.": (
        "Soft red linen – washable, with pockets."
    ),
    '<p style="color:red">Solid wood.</p>': "Solid wood.",
    "<P\nSTYLE='color:red' data-x=\"a > b\">Solid<BR/>wood.</P>": "Solid wood.",
    "<p style=color:red>Solid <b>w</b>ood.": "Solid wood.",
    '<p style="color:red>Solid wood.</p>': "Solid wood.",
    'Solid wood. <p class="a" style="color:re': "Solid wood.",
    "&lt;p style=&quot;color:red&quot;&gt;Solid wood.&lt;/p&gt;": "Solid wood.",
    "&amp;lt;p&amp;gt;Solid &amp;amp; heavy&amp;lt;/p&amp;gt;": "Solid & heavy",
    "<![CDATA[<p>Solid wood.</p>]]>": "Solid wood.",
    "<ul><li>Red</li><li>Blue</li></ul>": "Red Blue",
    "<td>Red</td><td>Blue</td>one<br>two": "Red Blue one two",
    "2 m<sup>2</sup> of <em>li</em>nen": "2 m2 of linen",
    "a<!-- red --><!---->b<!-- red": "ab",
    "<style>p{color:red}</style>Oak<script>if (a<b) red('</p>')</script>": "Oak",
    "Oak<style>p{color:red}": "Oak",
    "<!DOCTYPE html><?xml version='1.0'?>Oak<![if !lists]>.<![endif]>": "Oak.",
    "<o:p></o:p><description>Oak</description><br/>": "Oak",
    '[vc_row css="red"][vc_column]Oak[/vc_column][/vc_row] [b]table[/b]': "Oak table",
    '{{widget type="red"}}Oak': "Oak",
    'Oak <img src="data:image/png;base64,iVBORw0KGgo="> data:image/gif;base64,R0lG== table': (
        "Oak table"
    ),
    "Caf&eacute; R&amp;D &copy 2020 &#x1F457;&#8217;": "Café R&D © 2020 👗’",
    "zero\u200bwidth\ufeff so\u00adft\x00 re\u200dd\u2028cafe\u0301": "zerowidth soft red café",
    "Home &amp; Garden &gt; Beds": "Home & Garden > Beds",
    "<p> </p>": "",
}
TEXTS = [
    "a < b and c > d", "size 5<10", "<3", "A&B", "AT&T; H&M", ">_< :-> <- <=> :<", "Ring <XL>",
    "5' 10\" wide & 3 > 2", "mail <john@example.org>", "[New] [2 pack]", "width <b and up",
    "Technical data: 12/24, 5 V", "food&notes", "?a=1&copy=2", "&notanentity;", "Wow <!", "{a}",
    "👩‍👧 می‌خواهم", "翡翠戒指", "",
]  # fmt: skip


@pytest.mark.parametrize("marked_up", MARKED_UP)
def test_markup_is_not_text(marked_up):
    assert clean_text(marked_up) == MARKED_UP[marked_up]


@pytest.mark.parametrize("text", TEXTS)
def test_what_only_resembles_markup_is_text(text):
    assert clean_text(text) == text


_PIECES = st.sampled_from(
    [
        *"<>&;bp/![]='\", --a#", "{{", "}}", "amp;", "lt;", "#38;", "data:", "image/", "script",
        "style", "[CDATA[", "\u0301", "\u200d", "\u200b", "\u3000", "\u212a", "\u037e", "\ud800",
        "é", "\x00", "vc_row", "<b>",
    ]
)  # fmt: skip


@given(st.lists(_PIECES | st.characters(), max_size=40).map("".join))
@example("<" * 9 + "b>" * 9)
@example("&" + "amp;" * 9 + "#" * 9)
@example("<<<<<<<<b>b>b>b>b>b>b>b>script>\u212a\u200d")
def test_cleaned_text_is_clean(text):
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    cleaned.encode()


@pytest.mark.parametrize(
    "piece",
    [
        "<", "<a", "<a ", '<a ="', "<a ='\"", "</", "<div>", "<!--", "<!a", "<?a", "<script",
        "<style>", "<![CDATA[", "]]>", "&", "&#", "&amp", "amp;", "[", "[a ", "[a=", "{{", "data:",
        "data:image/", "a\u0301\u0316", "\u0301\u0316", "<b>", " ", "\u200d",
    ],
)  # fmt: skip
def test_time_grows_with_the_length_alone(piece):
    """A hundred times the text takes not much more than a hundred times as long."""

    def seconds(length: int) -> float:
        text = "&" + piece * (length // len(piece))
        start = time.process_time()
        clean_text(text)
        return time.process_time() - start

    least = max(min(seconds(10_000) for _ in range(3)), 0.001)
    assert seconds(1_000_000) < 1_000 * least


def test_a_catalogues_texts_are_clean(tmp_path):
    (tmp_path / "items.csv").write_text(
        "id,title,description,product_type,brand,color,style\n"
        '1,Red &amp; white rug,"<p style=""color:red"">Wool.</p>",Home &gt; Rugs,H&amp;M,'
        "<b>Navy</b>,<i>boho</i>\n"
        "2,<p></p>,x,,,,\n"
    )
    catalog = read_catalog(tmp_path)
    [product] = catalog.products()
    assert product.text() == "Red & white rug. Wool."
    assert (product.product_type, product.brand, product.color) == ("Home > Rugs", "H&M", "Navy")
    assert catalog.items["style"].tolist() == ["boho"]
    assert "neither a title" in catalog.report.summary()
