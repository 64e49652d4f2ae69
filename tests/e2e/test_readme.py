"""The README's commands, as a newcomer would give them, in a copy of the repository."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from newshelf.pipeline.workspace import ROOT, open_workspace, servers
from tests.e2e.rollouts import link_or_copy

SETTINGS = """
[sample]
products = 100
shoppers = 60

[finetune]
epochs = 2

[scorer]
epochs = 3
"""
"""Less of everything; what is done stays the same."""

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]

pytestmark = pytest.mark.xdist_group("readme")


class Newcomer:
    """Gives the README's commands in a folder that holds the repository's files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def start(self, command: str) -> subprocess.Popen[str]:
        assert command in COMMANDS, "the README says otherwise"
        # The README's server takes the usual ports, which something else may have here.
        words = shlex.split(command) + (["--port", "0"] if " serve" in command else [])
        return subprocess.Popen(
            words,
            cwd=self.root,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: str, code: int = 0) -> str:
        process = self.start(command)
        printed = process.communicate()[0]
        assert process.returncode == code, printed
        return printed

    def serve_until_ready(self, command: str) -> str:
        """Start, wait until it says how to end it, end it that way; what it printed."""
        process = self.start(command)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C ends it"):
                process.send_signal(signal.SIGINT)
        process.wait()
        assert any(line.startswith("Ctrl-C ends it") for line in lines), "".join(lines)
        return "".join(lines)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """A clone, but for the packages, which are not installed twice."""
    root = tmp_path_factory.mktemp("clone") / "newshelf"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    (root / "configs" / "packaged.toml").write_text(SETTINGS)
    yield Newcomer(root)
    subprocess.run([str(root / "run"), "stop"], cwd=root, check=False)


def check_live_product(root: Path) -> None:
    """Send what the lines about a new product make curl send, and read what is answered."""
    block = next(one for one in BLOCKS if one.startswith("auth="))
    (state,) = servers(None, root / ".newshelf" / "sample")
    assert state.gateway is not None
    key = (root / ".newshelf" / "sample" / "gateway" / "local.key").read_text().strip()
    settings, *lines = block.splitlines()
    assert settings == (
        'auth="Authorization: Bearer $(cat .newshelf/sample/gateway/local.key)" '
        "shop=http://127.0.0.1:8000/v1"
    )
    put, newest, view, recommend, sell_out = lines

    def say(line: str) -> dict[str, Any]:
        curl, header, auth, url, *options = shlex.split(line)
        assert [curl, header, auth] == ["curl", "-sH", "$auth"]
        given = dict(zip(options[::2], options[1::2], strict=True))
        response = httpx.request(
            given.get("-X", "POST"),
            url.replace("$shop", f"{state.gateway.url}/v1"),  # type: ignore[union-attr]
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            content=given.get("--json", ""),
            timeout=60,
            trust_env=False,
        )
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def until(line: str, found: Callable[[list[dict[str, Any]]], bool]) -> None:
        end_s = time.monotonic() + 120
        while not found(items := say(line)["items"]):
            assert time.monotonic() < end_s, items
            time.sleep(0.2)

    assert say(put)["accepted"] == 1
    until(newest, lambda items: items[0]["id"] == "new-1")
    assert say(view)["accepted"] == 1
    until(recommend, lambda items: "Silver ring" in items[0]["reason"])
    assert say(sell_out)["availability"] == "out_of_stock"
    # For a visitor without a history, the newest come first.
    until(newest.replace("ann", "ben"), lambda items: items[0]["id"] != "new-1")


def test_the_two_commands_that_set_everything_up_are_there() -> None:
    assert COMMANDS[0] == "./run serve"
    assert "./run test" in COMMANDS
    assert "./run check" in COMMANDS
    ci = (ROOT / ".ci" / "run").read_text()
    assert "./run check\n./run test\n" in ci


def test_a_newcomer_follows_the_readme(newcomer: Newcomer) -> None:
    first = newcomer.serve_until_ready("./run serve")
    assert "sample: not made yet" in first
    assert "rank" in first
    assert "curl" in first

    newcomer.run("./run serve --detach")
    assert "model" in newcomer.run("./run recommend --history NS00012 --history NS00045 -k 5")
    assert "embedding (512 numbers)" in newcomer.run(
        './run encode --title "silver ring with a small jade"'
    )
    status = newcomer.run("./run status")
    assert "1 of 1 workers ready" in status
    # The end of the first start interrupted the search for a precision; this one resumes it.
    assert "search " in status
    assert "interrupted" not in status
    check_live_product(newcomer.root)
    assert "whole request" in newcomer.run("./run profile --clients 8")
    assert "stopped" in newcomer.run("./run stop")
    report = newcomer.run("./run evaluate")
    assert "newshelf" in report
    assert "EASE" in report


def test_a_shop_of_ones_own(newcomer: Newcomer) -> None:
    drawn = newcomer.root / ".newshelf" / "sample"
    shop = newcomer.root / "path" / "to" / "shop"
    shutil.copytree(drawn / "sample", shop)
    # The same catalogue was trained on already: what is current is used again.
    own = newcomer.root / ".newshelf" / open_workspace(shop).root.name
    ignored = shutil.ignore_patterns("sample", "server", ".lock")
    shutil.copytree(drawn, own, ignore=ignored, copy_function=link_or_copy)
    printed = newcomer.serve_until_ready("./run serve --catalog path/to/shop")
    assert "train: current" in printed
    assert "rank" in printed
