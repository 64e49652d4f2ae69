"""Full-text index of the products' current texts, kept by the shelf and read by the gateway.

The folder is tantivy's; the number of the last change that it holds lies next to tantivy's files.
A product is deleted and added by its id, so following a change again after a crash is safe.
"""

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from tantivy import Document, Index, IndexWriter, Occur, Query, SchemaBuilder, Searcher

from newshelf.attributes.lexicon import tokens_of
from newshelf.files import file_stamp, write_aside
from newshelf.store.items import ItemColumns, ItemRepository, StoredItem

WORDS_FOLDER = ".words"
"""In the shelf's folder."""
_LOG = logging.getLogger(__name__)
_WEIGHTS = {"title": 3.0, "facts": 2.0, "rest": 1.0}
"""Fields with the weights of their matches."""
_FACTS = ("brand", "product_type", "color", "material", "size")
_FOLLOWED = "followed-1"
"""File of the last change; its number is the format's, so that another one is built again."""
_HEAP_BYTES = 50_000_000
_BATCH = 1_000
_MAX_TERMS = 64
"""Terms of a sentence that are searched for."""
_ONE_ERROR, _TWO_ERRORS = 4, 8
"""Letters from which on a word may have one typing error, and two."""


def _schema() -> SchemaBuilder:
    schema = SchemaBuilder().add_text_field("id", stored=True, tokenizer_name="raw")
    for name in _WEIGHTS:
        schema = schema.add_text_field(name, tokenizer_name="whitespace", index_option="freq")
    return schema


_SCHEMA = _schema().build()


class WordIndex:
    """Products by their words. One process follows the store, any number of them search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._followed = folder / _FOLLOWED
        self._writer: IndexWriter | None = None
        self._seq = 0
        self._searcher: Searcher | None = None
        self._opened = (0, 0)

    def follow(self, repository: ItemRepository) -> int:
        """Index all that changed, at first the seeded products too; return the last change."""
        writer = self._writer
        if writer is None:
            writer = self._writer = self._open(repository.last_seq())
            self._add_seeded(writer, repository)
        while changed := repository.changes(self._seq, _BATCH):
            _index(writer, changed)
            self._commit(writer, changed[-1].seq)
        return self._seq

    def search(self, text: str, limit: int = 200) -> list[str]:
        """Return the ids of the products that match best, best first.

        Words may be in any order, without some of them, in singular or plural; an unknown word
        also stands for those that begin with it, with a typing error or two. Nothing is found
        before the shelf has made the index.
        """
        searcher = self._current()
        terms = list(dict.fromkeys(_terms(text)))[:_MAX_TERMS]
        if searcher is None or not terms:
            return []
        queries = [(Occur.Should, query) for term in terms for query in _queries(searcher, term)]
        hits = searcher.search(Query.boolean_query(queries), limit, count=False).hits
        found = [(-score, str(searcher.doc(address)["id"][0])) for score, address in hits]
        # Equal scores come in the order of tantivy's segments, which changes as it merges them.
        return [item_id for _, item_id in sorted(found)]

    def _open(self, last_seq: int) -> IndexWriter:
        """Open the index for changes; from scratch if it is damaged or not of this store."""
        try:
            self._seq = int(self._followed.read_text())
            if self._seq <= last_seq:
                return Index.open(str(self.folder)).writer(_HEAP_BYTES, num_threads=1)
        except (OSError, ValueError) as error:
            _LOG.info("the index of words is built from scratch: %s", error)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._seq = 0
        return Index(_SCHEMA, str(self.folder)).writer(_HEAP_BYTES, num_threads=1)

    def _add_seeded(self, writer: IndexWriter, repository: ItemRepository) -> None:
        searcher = Index.open(str(self.folder)).searcher()
        seeded = repository.ids(unchanged=True)
        missing = [one for one in seeded if not searcher.doc_freq("id", one)]
        for start in range(0, len(missing), _BATCH):
            _index(writer, repository.get(missing[start : start + _BATCH]).values())
        self._commit(writer, self._seq)

    def _commit(self, writer: IndexWriter, seq: int) -> None:
        writer.commit()
        with write_aside(self._followed) as aside:
            aside.write_text(str(seq))
        self._seq = seq

    def _current(self) -> Searcher | None:
        """Return a searcher that knows the last commit; None if there is no index."""
        stamp = file_stamp(self._followed)
        try:
            if stamp != self._opened:
                self._searcher = Index.open(str(self.folder)).searcher() if any(stamp) else None
                self._opened = stamp
        except (OSError, ValueError):
            return None
        return self._searcher


def keep_words(
    folder: Path,
    repository: ItemRepository,
    ended: threading.Event,
    pause_s: float = 0.3,
    retry_s: float = 1.0,
) -> None:
    """Follow the store until ``ended`` is set; log errors and try again."""
    words = WordIndex(folder)
    while not ended.wait(pause_s):
        try:
            words.follow(repository)
        except Exception:
            _LOG.exception("the index of words does not follow; it is opened again")
            words = WordIndex(folder)
            ended.wait(retry_s)


def _index(writer: IndexWriter, products: Iterable[StoredItem]) -> None:
    for product in products:
        writer.delete_documents_by_term("id", product.id)
        if not product.deleted:
            writer.add_document(_document(product.columns))


def _document(columns: ItemColumns) -> Document:
    facts = [value for name in _FACTS if (value := getattr(columns, name))]
    rest = [columns.description or "", *map(str, columns.attributes.values())]
    return Document(
        id=columns.id,
        title=" ".join(_terms(columns.title or "")),
        facts=" ".join(_terms("\n".join(facts))),
        rest=" ".join(_terms("\n".join(rest))),
    )


def _terms(text: str) -> Iterator[str]:
    """Yield the folded words of a text; of Chinese, each character and each pair of neighbours."""
    tokens = tokens_of(text)
    for token in tokens:
        yield token.key
    for first, second in pairwise(tokens):
        if first.end == second.start:
            yield first.key + second.key


def _queries(searcher: Searcher, term: str) -> Iterator[Query]:
    known = any(searcher.doc_freq(name, term) for name in _WEIGHTS)
    if not known and (len(term) < _ONE_ERROR or not term.isascii()):
        return
    errors = 1 if len(term) < _TWO_ERRORS else 2
    for name, weight in _WEIGHTS.items():
        if known:
            found = Query.term_query(_SCHEMA, name, term)
        else:
            found = Query.fuzzy_term_query(_SCHEMA, name, term, errors, prefix=True)
        yield Query.boost_query(found, weight)
