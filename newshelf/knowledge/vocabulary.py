"""The packaged words for colours, materials and styles, in English and Chinese."""

from functools import cache
from importlib.resources import files

from newshelf.knowledge.lexicon import Lexicon, Word

__all__ = ["packaged_lexicon"]

_FILE = "vocabulary.tsv"
_CELLS = 4
PACKAGED_CONFIDENCE = 0.8
"""Of a packaged word, before a catalogue was seen; measured, see the benchmark ``titles``."""


@cache
def packaged_lexicon() -> Lexicon:
    """The words of ``vocabulary.tsv``."""
    text = (files("newshelf.knowledge") / _FILE).read_text(encoding="utf-8")
    words: list[Word] = []
    broader: dict[str, dict[str, str]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != _CELLS:
            raise ValueError(f"{_FILE} line {number}: {len(cells)} cells instead of {_CELLS}")
        attribute, value, wider, phrases = cells
        if wider:
            broader.setdefault(attribute, {})[value] = wider
        if value:
            # Understood by its own name even where that is not looked for in texts.
            words.append(Word(value, attribute, value, PACKAGED_CONFIDENCE, in_text=False))
        for phrase in phrases.split("|"):
            words.append(
                Word(
                    phrase.removeprefix("~"),
                    attribute,
                    value,
                    PACKAGED_CONFIDENCE,
                    in_text=not phrase.startswith("~"),
                )
            )
    return Lexicon(words, broader)
