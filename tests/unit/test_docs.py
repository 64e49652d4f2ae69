"""What the documents promise to list, they list."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from pydantic import BaseModel

from newshelf.config import Settings
from newshelf.server.properties import read_properties

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
DEPENDENCIES = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def keys(section: BaseModel, prefix: str = "") -> list[str]:
    found = []
    for name, value in section:
        is_section = isinstance(value, BaseModel)
        found += keys(value, f"{prefix}{name}.") if is_section else [f"{prefix}{name}"]
    return found


def documented(text: str) -> dict[str, str]:
    """``{key: default}`` of the tables' first two columns."""
    table: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            _, names, default, *_ = line.split("|")
            table |= dict.fromkeys(re.findall(r"`([^`]+)`", names), default.strip().strip("`"))
    return table


def direct() -> dict[str, str]:
    lines = (ROOT / "requirements.in").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("key", keys(Settings()))
def test_every_setting_is_documented_with_its_default(key: str) -> None:
    value: object = Settings().model_dump()
    for part in key.split("."):
        assert isinstance(value, dict)
        value = value[part]
    shown = str(list(value)) if isinstance(value, tuple) else str(value)
    if isinstance(value, bool):
        # As it is written in the settings' file.
        shown = shown.lower()
    assert documented(SETTINGS)[key] == shown


def test_every_property_is_documented_and_nothing_else() -> None:
    listed = set(documented(SETTINGS.partition("## config.properties")[2].partition("## Env")[0]))
    assert listed == set(read_properties(ROOT / "config.properties"))


def test_no_setting_is_documented_that_does_not_exist() -> None:
    listed = set(documented(SETTINGS.partition("## config.properties")[0]))
    assert listed == set(keys(Settings()))


def test_every_direct_dependency_is_explained_with_its_version() -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\S+) \| (.+) \|$", DEPENDENCIES, re.MULTILINE)
    assert {name: pinned for name, pinned, _ in rows if pinned != "version"} == direct()


def test_the_lock_pins_what_is_asked_for_with_hashes_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", lock, re.MULTILINE))
    for name, asked in direct().items():
        assert pinned[name] == asked
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock
    assert "--index" not in lock
    assert not re.search(r"^--?[a-z]", lock, re.MULTILINE)


def test_what_is_installed_is_what_is_asked_for() -> None:
    assert {name: version(name) for name in direct()} == direct()
