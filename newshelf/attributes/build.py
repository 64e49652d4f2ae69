"""Building, writing and reading the facts about a catalogue's products.

``knowledge.parquet`` has one row per fact::

    item_id      the product
    attribute    product_type, brand, color, material, style; from a tagger also model, other
    value        canonical: 红色 and red are "red"
    source       stated, title, description, tagger, "picture+text model", implied
    confidence   0 … 1
    start, end   characters of the title or description; null for other sources
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from newshelf.attributes.learn import HeadPredictions, head_facts, learn_lexicon
from newshelf.attributes.lexicon import (
    ATTRIBUTES,
    Fact,
    FactSource,
    Lexicon,
    Texts,
    implied,
    merge,
    statements,
)
from newshelf.attributes.title_tagger import TitleTagger
from newshelf.catalog.catalog import Catalog
from newshelf.errors import CatalogError
from newshelf.files import directory_aside, write_aside

FACTS_FILE, LEXICON_FILE = "knowledge.parquet", "lexicon.json"

_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("attribute", pa.string()),
        ("value", pa.string()),
        ("source", pa.string()),
        ("confidence", pa.float64()),
        ("start", pa.int32()),
        ("end", pa.int32()),
    ]
)


def write_facts(facts: Sequence[Fact], path: Path) -> None:
    """Write the table atomically."""
    columns = list(zip(*facts, strict=True)) or [()] * len(_SCHEMA)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)
    ]
    with write_aside(path) as aside:
        pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), aside)


def read_facts(path: Path) -> pa.Table:
    """Read the table."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CatalogError(f"the knowledge table {path} cannot be read: {error}") from error
    if not table.schema.equals(_SCHEMA):
        raise CatalogError(f"{path} has other columns than this version writes: train again")
    return table


_ATTRIBUTES = {"HCCX": "product_type", "HPPX": "brand", "XH": "model", "MISC": "other"}
"""Labels of the public Chinese shop titles; other labels are names of attributes."""


def tagged_facts(item: str, title: str, tagger: TitleTagger, lexicon: Lexicon) -> Iterator[Fact]:
    """Yield the tagger's facts; of spans of unknown attributes, the lexicon's or ``other``."""
    for (start, end, label), confidence in tagger.find(title):
        attribute = _ATTRIBUTES.get(label, label)
        text = title[start:end]
        if attribute == "other" and lexicon.find(text):
            continue
        value = lexicon.canonical(attribute, text)
        yield Fact(item, attribute, value, "tagger", min(confidence, 1.0), start, end)


_MIN_CONFIDENCE = 0.3
"""Facts below this confidence are dropped."""


@dataclass(frozen=True)
class Knowledge:
    """Facts about a catalogue's products."""

    lexicon: Lexicon
    facts: Sequence[Fact]

    def counts(self) -> Mapping[tuple[str, FactSource], int]:
        """Return the number of facts by attribute and source."""
        return Counter((fact.attribute, fact.source) for fact in self.facts)


def build_knowledge(
    catalog: Catalog,
    out: Path,
    *,
    heads: Sequence[HeadPredictions] = (),
    tagger: TitleTagger | None = None,
) -> Knowledge:
    """Collect and write the facts from columns, texts and the encoder for every product.

    ``out`` is replaced atomically. Rows of the heads are in the catalogue's order.
    """
    texts = catalog_texts(catalog)
    lexicon = learn_lexicon(texts)
    ids = [str(item) for item in catalog.items["id"]]
    for head in heads:
        if len(head.logits) != len(ids):
            raise ValueError(
                f"the head {head.attribute} has {len(head.logits)} products, and the "
                f"catalogue {len(ids)}"
            )
    facts: list[Fact] = []
    for item, text in zip(ids, texts, strict=True):
        facts += statements(item, text, lexicon)
        if tagger is not None:
            facts += tagged_facts(item, text.title, tagger, lexicon)
    for head in heads:
        facts += [
            fact._replace(value=lexicon.canonical(fact.attribute, fact.value))
            for fact in head_facts(ids, head, _MIN_CONFIDENCE)
        ]
    facts += [wider for fact in facts for wider in implied(fact, lexicon)]
    knowledge = Knowledge(lexicon, [f for f in merge(facts) if f.confidence >= _MIN_CONFIDENCE])
    with directory_aside(out) as folder:
        write_facts(knowledge.facts, folder / FACTS_FILE)
        lexicon.write(folder / LEXICON_FILE)
    return knowledge


def catalog_texts(catalog: Catalog) -> list[Texts]:
    """Return each product's texts and stated values, in the catalogue's order."""
    names = ["title", "description", *(name for name in ATTRIBUTES if name in catalog.items)]
    return [Texts.of(row) for row in catalog.rows(names)]
