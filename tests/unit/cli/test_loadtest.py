"""The verbs of ``./run loadtest``: help, examples, the commands of the documents, exit codes."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from loadtest.record import write_record
from loadtest.slo import read_slo
from loadtest.traffic import KINDS
from newshelf.cli.app import app
from tests.unit.loadtest.made_records import made_record, made_second

ROOT = Path(__file__).resolve().parents[3]
DOC = (ROOT / "docs" / "loadtest.md").read_text(encoding="utf-8")
SCENARIOS = ("steady", "ramp", "spike", "soak", "day")
VERBS = (*SCENARIOS, "saturate", "compare", "report")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", DOC, flags=re.DOTALL)
    for line in block.splitlines()
    if "./run loadtest" in line
]
runner = CliRunner()


def run(*words: str) -> tuple[int, str]:
    result = runner.invoke(
        app, ["loadtest", *words], prog_name="./run", env={"COLUMNS": "200", "NEWSHELF_TOKEN": ""}
    )
    return result.exit_code, result.output


def parsed(line: str) -> str:
    """The verb of a command whose every option exists; raises otherwise."""
    words = shlex.split(line)
    words = words[words.index("loadtest") + 1 :]
    group = typer.main.get_command(app).commands["loadtest"]
    group.commands[words[0]].make_context(words[0], words[1:])
    return words[0]


def test_the_help_lists_the_verbs_and_the_exit_codes() -> None:
    code, output = run("--help")
    assert code == 0
    assert all(f" {verb} " in output for verb in VERBS)
    assert "1: they are not" in output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_has_an_example_that_can_be_given(verb: str) -> None:
    code, output = run(verb, "--help")
    assert code == 0
    [example] = re.findall(rf"Example: (\./run loadtest {verb} .*?)\s*\n", output)
    assert parsed(example) == verb


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_document_can_be_given(line: str) -> None:
    assert parsed(line) in VERBS


def test_the_documents_limits_are_read(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", DOC, flags=re.DOTALL)
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    assert read_slo(str(path), KINDS).kinds["recommend history"].throughput == 5


def test_the_document_names_every_kind_and_scenario() -> None:
    assert all(f"`{name}`" in DOC for name in (*KINDS, *SCENARIOS))


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    code, output = run("report", str(tmp_path / "none.json"))
    assert (code, output.count("\n")) == (2, 1)
    assert output.startswith("error: ")
    code, output = run("steady", "--workspace", str(tmp_path), "--slo", str(tmp_path / "none"))
    assert (code, "cannot be read" in output) == (2, True)
    code, output = run("saturate", "--slo", str(ROOT / "loadtest" / "slo.yaml"), "--workspace",
                       str(tmp_path))  # fmt: skip
    assert code == 2
    assert output.startswith("error: no server is running")
    assert output.count("\n") == 1


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = runner.invoke(app, ["--debug", "loadtest", "report", str(tmp_path / "none.json")])
    assert type(result.exception).__name__ == "SettingsError"


def test_a_kept_record_is_reported_and_compared(tmp_path: Path) -> None:
    paths = []
    for name, latency_ms in (("a", 10.0), ("b", 20.0)):
        load = [made_second(at, [latency_ms + at % 2] * 100) for at in range(16)]
        write_record(made_record(load), tmp_path / name / "record.json")
        paths.append(str(tmp_path / name / "record.json"))
    assert run("report", paths[0], "--slo", "p99=12ms")[0] == 0
    assert (tmp_path / "a" / "report.html").is_file()
    code, output = run("report", paths[1], "--slo", "p99=12ms", "--out", str(tmp_path / "c"))
    assert (code, "✗ all: p99 is 21.0 ms" in output) == (1, True)
    code, output = run("compare", *paths)
    assert (code, "B is worse than A" in output) == (1, True)
    assert run("compare", *reversed(paths))[0] == 0
