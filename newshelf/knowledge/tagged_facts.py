"""From a tagger's spans to statements: product, brand, model, and the rest by its words."""

from collections.abc import Iterator

from newshelf.knowledge.facts import Fact
from newshelf.knowledge.lexicon import Lexicon
from newshelf.knowledge.tagger import TitleTagger

__all__ = ["tagged_facts"]

_ATTRIBUTES = {"HCCX": "product_type", "HPPX": "brand", "XH": "model", "MISC": "other"}
"""Labels of the public Chinese shop titles; other labels are taken for attributes' names."""


def tagged_facts(item: str, title: str, tagger: TitleTagger, lexicon: Lexicon) -> Iterator[Fact]:
    """What the tagger sees in a title.

    A span that is neither product, brand nor model is left to the lexicon, which knows
    colours, materials and styles; what it does not know is kept as ``other``.
    """
    for (start, end, label), confidence in tagger.find(title):
        attribute = _ATTRIBUTES.get(label, label)
        text = title[start:end]
        if attribute == "other" and lexicon.find(text):
            continue
        value = lexicon.canonical(attribute, text)
        yield Fact(item, attribute, value, "tagger", min(confidence, 1.0), start, end)
