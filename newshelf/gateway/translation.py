"""Language of an answer: its sentences in the language that the client prefers.

Everything is said in English. ``messages_zh.tsv`` has templates of the English sentences and their
translations, by error code. A sentence without one stays English; codes, fields, ids and numbers
are the same in each language.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple, get_args

import orjson

from newshelf.attributes.lexicon import ATTRIBUTES, packaged_lexicon, phrase_key, type_names
from newshelf.config import Language

ENGLISH: Language = "en"
_MAX_CHARS = 200
_RANGE = re.compile(
    r"\s*([a-z]{1,8}|\*)(?:-[a-z0-9-]+)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?"
)


@lru_cache(maxsize=256)
def preferred_language(accept: bytes) -> Language:
    """Return the best language of an ``Accept-Language`` header; English if none is accepted."""
    wanted: dict[str, float] = {}
    for part in accept[:_MAX_CHARS].decode("latin-1").lower().split(","):
        if found := _RANGE.fullmatch(part):
            wanted[found[1]] = max(float(found[2] or 1), wanted.get(found[1], 0))
    named = [language for language in wanted if language in get_args(Language)]
    others = [language for language in get_args(Language) if language not in wanted]
    ranked = {language: wanted.get(language, wanted.get("*", 0)) for language in named + others}
    best: Language = max(ranked, key=lambda language: ranked[language])
    return best if ranked[best] else ENGLISH


class _Template(NamedTuple):
    english: re.Pattern[str]
    translation: str


_HOLE = re.compile(r"\{(\w+)\}")
_SHARED = re.compile(r", (?=same )")


@cache
def _templates(language: Language) -> Mapping[str, Sequence[_Template]]:
    """Return the templates by error code, or by the name of what they fill in others."""
    if language == ENGLISH:
        return {}
    text = (files("newshelf.gateway") / f"messages_{language}.tsv").read_text(encoding="utf-8")
    found: dict[str, list[_Template]] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            section, english, translation = line.split("\t")
            found.setdefault(section, []).append(_Template(_pattern(english), translation))
    return found


def _pattern(english: str) -> re.Pattern[str]:
    parts = enumerate(_HOLE.split(english))
    return re.compile(
        "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in parts), re.DOTALL
    )


def translated(section: str, sentence: str, language: Language) -> str | None:
    """Return the sentence in a language other than English; None if no template fits it."""
    for english, translation in _templates(language).get(section, ()):
        if found := english.fullmatch(sentence):
            groups = found.groupdict().items()
            said = {name: _part(section, name, text, language) for name, text in groups}
            if None not in said.values():
                return _filled(translation, said)
    return None


def _filled(template: str, said: Mapping[str, str | None]) -> str:
    return _HOLE.sub(lambda hole: said[hole[1]] or "", template)


def _part(section: str, name: str, text: str, language: Language) -> str | None:
    if name == "message":
        return translated(section, text, language)
    if name == "shared":
        parts = _SHARED.split(text)
        return "，".join(translated(name, part, language) or part for part in parts)
    if name in ATTRIBUTES:
        return _value(name, text)
    return translated(name, text, language) or text


def _value(attribute: str, text: str) -> str:
    """Return the Chinese name of a colour, a type and so on, if the lexicon has one."""
    if attribute == "product_type":
        levels = text.split(" > ")
        names = [[*type_names().get(phrase_key(level), ()), level] for level in levels]
        return " > ".join(
            next((name for name in known if not name.isascii()), known[-1]) for known in names
        )
    value = packaged_lexicon().canonical(attribute, text)
    return _chinese_names().get((attribute, value), text) if text.isascii() else text


@cache
def _chinese_names() -> Mapping[tuple[str, str], str]:
    names: dict[tuple[str, str], str] = {}
    for word in packaged_lexicon().words:
        if not word.phrase.isascii():
            names.setdefault((word.attribute, word.value), word.phrase)
    return names


_SENTENCES = (b'"message"', b'"reason"', b'"warnings"')
"""Fields of an answer that hold sentences."""
_LISTS = ("items", "results", "predictions")
"""Fields of an answer whose rows may have them, too."""


def in_language(body: bytes, language: Language) -> bytes:
    """Return an answer's JSON with its sentences in the language, as far as they are known."""
    if not any(field in body for field in _SENTENCES):
        return body
    answer = orjson.loads(body)
    for row in _rows(answer):
        for field, section in (("message", row.get("code")), ("reason", "reason")):
            if isinstance(row.get(field), str) and isinstance(section, str):
                row[field] = translated(section, row[field], language) or row[field]
        if isinstance(warnings := row.get("warnings"), list):
            row["warnings"] = [translated("warning", one, language) or one for one in warnings]
    return orjson.dumps(answer)


def _rows(answer: object) -> Iterator[dict[str, Any]]:
    if isinstance(answer, dict):
        yield answer
        for name in ("error", *_LISTS):
            rows = answer.get(name)
            for row in rows if isinstance(rows, list) else [rows]:
                yield from _rows(row)
