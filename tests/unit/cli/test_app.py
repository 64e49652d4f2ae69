import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from newshelf.cli.app import app
from newshelf.cli.pipeline import settings_from
from newshelf.errors import SettingsError

ROOT = Path(__file__).resolve().parents[3]
VERBS = (
    "sample",
    "train",
    "evaluate",
    "export",
    "archive",
    "retrain",
    "serve",
    "stop",
    "status",
    "recommend",
    "encode",
    "profile",
    "tune",
    "analyse",
    "embed",
    "drift",
    "offpolicy",
)
runner = CliRunner()


def run(*words: str) -> tuple[int, str]:
    result = runner.invoke(app, list(words), prog_name="./run", env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_the_help_lists_exactly_the_verbs() -> None:
    assert tuple(command.callback.__name__ for command in app.registered_commands) == VERBS
    code, output = run("--help")
    assert code == 0
    assert all(f" {verb} " in output for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verbs_help_has_an_example_that_starts_with_it(verb: str) -> None:
    code, output = run(verb, "--help")
    assert code == 0
    assert f"Example: ./run {verb}" in " ".join(output.split())


@pytest.mark.parametrize("verb", VERBS)
def test_an_examples_options_exist(verb: str) -> None:
    _, output = run(verb, "--help")
    example = output.partition("Example: ")[2].splitlines()[0]
    for word in example.split():
        if word.startswith("-"):
            assert output.count(word) >= 2, f"{word} is only in the example"


def test_no_verb_prints_the_help() -> None:
    assert "Usage: ./run" in run()[1]


def test_an_expected_error_is_one_line_and_exit_code_1() -> None:
    code, output = run("train", "--catalog", "/nowhere")
    assert code == 1
    assert output.startswith("error: --catalog /nowhere ")
    assert output.count("\n") == 1


def test_debug_shows_where_it_came_from() -> None:
    result = runner.invoke(app, ["--debug", "train", "--catalog", "/nowhere"])
    assert type(result.exception).__name__ == "SetupError"


def test_status_and_stop_without_a_server(tmp_path: Path) -> None:
    code, output = run("status", "--workspace", str(tmp_path))
    assert (code, "no server is running" in output) == (1, True)
    code, output = run("stop", "--workspace", str(tmp_path))
    assert (code, "no server is running" in output) == (0, True)


def test_recommend_without_a_server_names_the_command_that_starts_one(tmp_path: Path) -> None:
    code, output = run("recommend", "--history", "a", "--workspace", str(tmp_path))
    assert (code, "./run serve --detach" in output) == (1, True)


def test_encode_needs_something_to_encode(tmp_path: Path) -> None:
    assert "--title, --image" in run("encode", "--workspace", str(tmp_path))[1]
    missing = run("encode", "--image", str(tmp_path / "x.jpg"), "--workspace", str(tmp_path))[1]
    assert "x.jpg: No such file" in missing


def test_the_language_is_that_of_the_sample_alone(tmp_path: Path) -> None:
    code, output = run("train", "--catalog", str(tmp_path), "--language", "zh")
    assert code == 1
    assert "--language is for the drawn sample" in output


def test_sample_does_not_replace_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    code, output = run("sample", "--out", str(tmp_path))
    assert (code, "is not an empty folder" in output) == (1, True)
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_the_runtime_option_wins_over_the_settings() -> None:
    assert settings_from(None).archive.runtime == "auto"
    assert settings_from(None, "torchscript").archive.runtime == "torchscript"
    accepted = "--runtime is auto, onnxruntime, openvino or torchscript, not tvm"
    with pytest.raises(SettingsError, match=accepted):
        settings_from(None, "tvm")


def test_listing_servers_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom newshelf.cli.app import app\n"
        f"app(['status', '--workspace', {str(tmp_path)!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


def test_unknown_words_are_refused() -> None:
    assert run("trian")[0] == 2
    assert run("train", "--epochs", "3")[0] == 2
