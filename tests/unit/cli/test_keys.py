"""``./run keys``: made, listed, revoked."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.gateway.keys import SCOPES, KeyFile, digest_of
from newshelf.pipeline.serve import first_key
from newshelf.pipeline.workspace import Workspace

runner = CliRunner()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", tmp_path / "shop", is_sample=False)


def run(workspace: Workspace, *words: str) -> tuple[int, str]:
    words = ("keys", *words, "--workspace", str(workspace.root))
    result = runner.invoke(app, list(words), prog_name="./run", env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_a_key_is_printed_once_listed_without_its_secret_and_revoked(workspace: Workspace) -> None:
    code, printed = run(workspace, "add", "shop", "--rate", "20", "--days", "7", "--scope", "items")
    assert code == 0
    secret = printed.strip()
    [found] = KeyFile(workspace.api_keys).read()
    assert found.sha256 == digest_of(secret)
    assert found.expires is not None
    assert (found.expires - found.created).days == 7
    assert found.scopes == ("items",)

    code, listed = run(workspace, "list")
    assert code == 0
    assert "shop" in listed
    assert "20" in listed
    assert "items" in listed
    assert secret not in listed
    assert found.sha256 not in listed

    assert run(workspace, "revoke", "shop") == (0, "shop is revoked\n")
    assert KeyFile(workspace.api_keys).read() == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "with space"), "name"),
        (("add", "shop", "--rate", "0"), "rate_per_s"),
        (("add", "shop", "--days", "0"), "expired already"),
        (("add", "shop", "--scope", "write"), "scopes"),
        (("add", "shop", "--days", "1e99"), "no number of days"),
        (("add", "shop", "--days", "nan"), "no number of days"),
        (("revoke", "nobody"), "no key called 'nobody'"),
    ],
)
def test_a_refused_command_says_why_and_changes_nothing(
    workspace: Workspace, words: tuple[str, ...], said: str
) -> None:
    code, output = run(workspace, *words)
    assert code == 2
    assert said in output
    assert KeyFile(workspace.api_keys).read() == ()


@pytest.mark.parametrize("verb", ["add", "list", "revoke"])
def test_the_help_has_an_example(verb: str) -> None:
    result = runner.invoke(app, ["keys", verb, "--help"], env={"COLUMNS": "200"})
    assert f"./run keys {verb}" in " ".join(result.output.split())


def test_the_first_start_makes_a_key_for_this_machine_and_no_second_one(
    workspace: Workspace,
) -> None:
    path = first_key(workspace)
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text().strip()
    [found] = KeyFile(workspace.api_keys).read()
    assert found.sha256 == digest_of(secret)
    assert found.name == "local"
    assert found.scopes == SCOPES
    assert first_key(workspace) == path
    assert path.read_text().strip() == secret


def test_where_there_are_keys_none_is_added(workspace: Workspace) -> None:
    KeyFile(workspace.api_keys).add("own", now=datetime.now(UTC), expires=None, rate_per_s=1)
    assert not first_key(workspace).exists()
