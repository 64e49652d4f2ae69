"""Fixtures are found by name, wherever a test runs: no module borrows another's tests or fixtures.

A fixture that is imported is found without those that it needs; one that two folders need is in
``tests/fixtures.py``.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT = re.compile(r"^from (tests[\w.]*) import (\([^)]*\)|.+)$", re.MULTILINE)
FIXTURE = re.compile(r"^@pytest\.fixture\b.*\n(?:^[ @)].*\n)*(?:async )?def (\w+)", re.MULTILINE)


def borrowed(text: str) -> list[str]:
    """What a module imports and should not."""
    found = []
    for module, names in IMPORT.findall(text):
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        fixtures = set(FIXTURE.findall(path.read_text())) if path.is_file() else set()
        for name in re.findall(r"\w+", re.sub(r"#.*| as \w+", "", names)):
            if path.name.startswith("test_") or name.startswith("test_") or name in fixtures:
                found.append(f"{module}.{name}")
    return found


def test_no_module_of_the_tests_imports_tests_or_fixtures() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    found = {str(path): names for path in files if (names := borrowed(path.read_text()))}
    assert found == {}
    assert len(files) > 100


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from tests.unit import test_files", ["tests.unit.test_files"]),
        ("from tests.unit.test_files import anything", ["tests.unit.test_files.anything"]),
        (
            "from tests.fixtures import (  # noqa: F401\n    Path,\n    bundle,\n)",
            ["tests.fixtures.bundle"],
        ),
        ("from tests.receiver import Receiver, receiver", []),
    ],
)
def test_the_look_finds_them(line: str, names: list[str]) -> None:
    assert borrowed(f"import re\n{line}\n") == names
