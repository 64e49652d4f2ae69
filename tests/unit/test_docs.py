"""What the documents promise to list, they list."""

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from newshelf.config import Settings
from newshelf.gateway.placements import Placement
from newshelf.pipeline.workspace import Workspace
from newshelf.server.torchserve import read_properties
from newshelf.serving.rules import RuleSet

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
    files = [ROOT / f"requirements{group}.in" for group in ("", "-serving", "-training")]
    text = "\n".join(path.read_text() for path in files)
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", text, re.MULTILINE))


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


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}


def code_spans(text: str) -> set[str]:
    """What stands between single backticks, outside of code blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", prose))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    named = {
        span
        for span in code_spans(TEXT[page])
        # In capitals stands what the reader puts in.
        if span.startswith(TOP) and re.fullmatch(r"(?!.*\b[A-Z]{2,}\b(?!\.md))[\w./-]+", span)
    }
    missing = [path for path in named if not (ROOT / path).exists()]
    # The same name may be a folder of the workspace, or a URL's.
    assert [path for path in missing if not hasattr(Workspace, path.split("/")[0])] == []


def is_defined(dotted: str) -> bool:
    """Find a module, or a name at the top of one, without importing anything."""
    words = dotted.split(".")
    place = ROOT.joinpath(*words)
    if place.with_suffix(".py").is_file() or place.is_dir():
        return True
    source = ROOT.joinpath(*words[:-1]).with_suffix(".py")
    if not source.is_file():
        return False
    body = ast.parse(source.read_text(encoding="utf-8")).body
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return words[-1] in names | {node.name for node in body if isinstance(node, kinds)}


def code_names(text: str) -> set[str]:
    """Dotted names of ours: in code spans, imports of examples, and ``python -m``."""
    ours = rf"(?:{'|'.join(folder.rstrip('/') for folder in TOP)})(?:\.\w+)+"
    spans = {match[0] for span in code_spans(text) if (match := re.match(ours, span))}
    names = {name for name in spans if not (ROOT / name).exists()}
    names |= set(re.findall(rf"-m ({ours})", text))
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and re.match(ours, f"{node.module}.x"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_and_name_of_ours_exists(page: Path) -> None:
    assert [name for name in sorted(code_names(TEXT[page])) if not is_defined(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", TEXT[page])
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    broken = []
    for link in local:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page: its headings', as GitHub makes them, and those it sets itself."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"></a>', text))


OTHER_FILES: dict[str, Any] = {"rules.md": RuleSet, "recommendations.md": dict[str, Placement]}
"""Pages whose TOML is not of the settings."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_examples_are_accepted(page: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", TEXT[page], re.MULTILINE | re.DOTALL):
        TypeAdapter(OTHER_FILES.get(page.name, Settings)).validate_python(tomllib.loads(block))


def chart_values(table: dict[str, Any], prefix: str = "") -> set[str]:
    """The names of the Helm chart's values, of which some are like settings."""
    found = {f"{prefix}{key}" for key in table}
    for key, value in table.items():
        found |= chart_values(value, f"{prefix}{key}.") if isinstance(value, dict) else set()
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = set(keys(Settings()))
    sections = {key.rpartition(".")[0] for key in known} - {""}
    if page.name == "kubernetes.md":
        known |= chart_values(
            yaml.safe_load((ROOT / "deploy/helm/newshelf/values.yaml").read_text())
        )
    named = {
        span
        for span in code_spans(TEXT[page])
        if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", span) and span.rpartition(".")[0] in sections
    }
    modules = {name for name in named if name.endswith((".py", ".json", ".toml", ".yaml"))}
    assert named - modules <= known | sections


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_event_store_is_named_where_it_is(page: Path, tmp_path: Path) -> None:
    place = Workspace(root=Path(".newshelf/sample"), catalog=tmp_path, is_sample=True)
    url = place.store_url(Settings())
    named = set(re.findall(r"[\w./:-]*\.newshelf/[\w./-]*events\.db", TEXT[page]))
    assert {path.removeprefix("sqlite:///") for path in named} <= {url.removeprefix("sqlite:///")}


def test_the_size_of_the_environment_is_named_alike() -> None:
    setup = (ROOT / "run").read_text(encoding="utf-8")
    [announced] = re.findall(r"\(about (\d+) GB", setup)
    [measured] = re.findall(r"the ([\d.]+) GB that `\.venv` has", DEPENDENCIES)
    assert round(float(measured)) == int(announced)


@pytest.mark.parametrize(
    "picture", sorted((ROOT / "docs/images/architecture").glob("*.svg")), ids=lambda path: path.stem
)
def test_every_file_in_a_picture_is_there(picture: Path) -> None:
    named = re.findall(r'class="file"[^>]*>([^<]+)<', picture.read_text(encoding="utf-8"))
    assert named
    missing = [
        name
        for name in named
        if not ((ROOT / name).exists() or (ROOT / "newshelf" / name).exists())
    ]
    assert missing == []


def test_the_layers_are_those_that_the_check_enforces() -> None:
    table = TEXT[ROOT / "docs" / "architecture.md"].partition("## Layers")[2].partition("\n## ")[0]
    rows = "\n".join(line for line in table.splitlines() if line.startswith("| `newshelf/"))
    named = re.findall(r"`newshelf/(\w+)", rows)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [layers] = [each["layers"] for each in contracts["contracts"] if "containers" in each]
    assert named == layers
