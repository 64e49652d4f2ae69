"""English of the documents and the code: no private words, docstrings that say what is done."""

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STYLE = tomllib.loads((ROOT / "docs" / "prose.toml").read_text(encoding="utf-8"))
WORDS = [
    (re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead)
    for pattern, instead in STYLE["replace"].items()
]
OPENING = re.compile(rf"({'|'.join(STYLE['openings'])})\b")
# The literal parts of an f-string have a type of their own since Python 3.12.
TEXT_TOKENS = {
    tokenize.STRING,
    tokenize.COMMENT,
    getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
CODE = ("newshelf", "handlers", "export", "loadtest", "benchmarks")
TEXT = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*.md",
    "loadtest/*.md",
    "model_store/*.md",
    "config.properties",
    "configs/*",
    "run",
)


def sources() -> list[str]:
    """Files of the repository, without what a build or a virtual environment adds."""
    patterns = [*TEXT, *(f"{folder}/**/*.py" for folder in CODE)]
    found = {path.relative_to(ROOT).as_posix() for each in patterns for path in ROOT.glob(each)}
    return sorted(path for path in found if (ROOT / path).is_file())


def prose_of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, without code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield strings and comments with the number of the line that each begins on."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in TEXT_TOKENS:
            yield token.start[0], re.sub(r"``[^`]*``", "", token.string)


def openings(text: str) -> Iterator[tuple[int, str]]:
    """Yield docstrings and help texts with the number of the line that each begins on."""
    for node in ast.walk(ast.parse(text)):
        first = None
        if isinstance(node, DOCUMENTED) and node.body and isinstance(node.body[0], ast.Expr):
            first = node.body[0].value
        elif isinstance(node, ast.keyword) and node.arg == "help":
            first = node.value
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.lineno, first.value


def findings(path: str) -> list[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    is_python = path.endswith(".py")
    if is_python:
        prose = prose_of_python(text)
    elif path.endswith(".md"):
        prose = prose_of_markdown(text)
    else:
        prose = enumerate(text.splitlines(), 1)
    found = [
        f"{path}:{number + passage.count(chr(10), 0, match.start())}: ‘{match[0]}’: write {instead}"
        for number, passage in prose
        for word, instead in WORDS
        for match in word.finditer(passage)
    ]
    if is_python:
        found += [
            f"{path}:{number}: begins with ‘{match[0]}’: say what it does or contains"
            for number, passage in openings(text)
            if (match := OPENING.match(passage.lstrip()))
        ]
    return found


@pytest.mark.parametrize("path", sources())
def test_words_and_openings_are_standard(path: str) -> None:
    assert findings(path) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Rebuilt anew, and ``anew`` is code.", 1),
        ("# Holds the answers against limits.", 1),
        ("Recorded besides; beside it.", 2),
        ("Holds the answers.", 0),
    ],
)
def test_a_word_is_found_in_strings_and_comments(text: str, found: int) -> None:
    source = text if text.startswith("#") else f'x = "{text}"'
    passages = [passage for _, passage in prose_of_python(source + "\n")]
    assert sum(len(word.findall(each)) for each in passages for word, _ in WORDS) == found


def test_a_docstring_and_a_help_text_have_an_opening() -> None:
    source = '"""What it is."""\ndef f(a=Option(help="Whether to.")):\n    """Return it."""\n'
    assert [bool(OPENING.match(text)) for _, text in openings(source)].count(True) == 2
