"""A catalogue to a table of what is known of each product."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from newshelf.catalog import Catalog
from newshelf.files import directory_aside
from newshelf.knowledge.facts import Fact, FactSource, merge
from newshelf.knowledge.facts_file import FACTS_FILE, LEXICON_FILE, write_facts
from newshelf.knowledge.heads import HeadReading, head_facts
from newshelf.knowledge.learning import learn_lexicon
from newshelf.knowledge.lexicon import ATTRIBUTES, Lexicon
from newshelf.knowledge.statements import Texts, implied, statements
from newshelf.knowledge.tagged_facts import tagged_facts
from newshelf.knowledge.tagger import TitleTagger

__all__ = ["Knowledge", "build_knowledge", "catalog_texts"]

_LEAST = 0.3
"""Statements below this confidence are not kept."""


@dataclass(frozen=True)
class Knowledge:
    """What was found."""

    lexicon: Lexicon
    facts: Sequence[Fact]

    def counts(self) -> Mapping[tuple[str, FactSource], int]:
        """Statements by attribute and source."""
        return Counter((fact.attribute, fact.source) for fact in self.facts)


def build_knowledge(
    catalog: Catalog,
    out: Path,
    *,
    heads: Sequence[HeadReading] = (),
    tagger: TitleTagger | None = None,
) -> Knowledge:
    """Collect what columns, texts and the encoder say of every product, and write it.

    Args:
        catalog: its titles, descriptions and stated columns; a column ``style`` of the
            shop's own is read too.
        out: a folder, replaced as a whole: ``knowledge.parquet`` and ``lexicon.json``.
        heads: logits of the encoder's heads, rows in the catalogue's order.
        tagger: for titles, where one was trained.

    Raises:
        ValueError: a head speaks of another number of products.
    """
    texts = catalog_texts(catalog)
    lexicon = learn_lexicon(texts)
    ids = [str(item) for item in catalog.items["id"]]
    for head in heads:
        if len(head.logits) != len(ids):
            raise ValueError(
                f"the head {head.attribute} speaks of {len(head.logits)} products, and the "
                f"catalogue has {len(ids)}"
            )
    facts = [
        fact
        for item, text in zip(ids, texts, strict=True)
        for fact in _facts_of(item, text, lexicon, tagger)
    ]
    for head in heads:
        facts += [_canonical(fact, lexicon) for fact in head_facts(ids, head, _LEAST)]
    facts += [wider for fact in facts for wider in implied(fact, lexicon)]
    knowledge = Knowledge(lexicon, [f for f in merge(facts) if f.confidence >= _LEAST])
    with directory_aside(out) as folder:
        write_facts(knowledge.facts, folder / FACTS_FILE)
        lexicon.write(folder / LEXICON_FILE)
    return knowledge


def catalog_texts(catalog: Catalog) -> list[Texts]:
    """Each product's texts and stated values, in the catalogue's order."""
    names = ["title", "description", *(name for name in ATTRIBUTES if name in catalog.items)]
    frame = catalog.items[names].astype(object)
    frame = frame.where(frame.notna(), None)
    return [
        Texts.of(dict(zip(names, row, strict=True)))
        for row in frame.itertuples(index=False, name=None)
    ]


def _facts_of(
    item: str, texts: Texts, lexicon: Lexicon, tagger: TitleTagger | None
) -> Iterator[Fact]:
    yield from statements(item, texts, lexicon)
    if tagger is not None:
        yield from tagged_facts(item, texts.title, tagger, lexicon)


def _canonical(fact: Fact, lexicon: Lexicon) -> Fact:
    return fact._replace(value=lexicon.canonical(fact.attribute, fact.value))
