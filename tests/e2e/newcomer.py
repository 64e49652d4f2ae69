"""A newcomer, who gives the commands of README and tutorials in a copy of the repository."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from newshelf.pipeline.workspace import ROOT
from newshelf.server.state import ServerState, find_running
from tests.e2e.towers import save_towers

__all__ = ["BLOCKS", "COMMANDS", "Newcomer", "bash_blocks"]

SETTINGS = """
[sample]
products = 100
shoppers = 60

[finetune]
epochs = 2

[scorer]
epochs = 3

[rollout]
tick_s = 1.0
"""
"""Less of everything, with small towers; what is done stays the same."""

USUAL = "http://127.0.0.1:8000"
"""Address of the gateway in the documents; something else may have its port here."""
INSTEAD = {
    "./run serve": "./run serve --port 0",
    "--seconds 90": "--seconds 8 --warm-up 1",
    # A busy machine is slow; the rollout must not be ended by that.
    "--slo p99=10s,errors=5%": "--slo p99=60s,errors=50%",
    "most: 2000": "most: 60000",
    "most: 0.05": "most: 0.9",
}
"""Parts of the tutorials' commands, and what is given instead: other ports, and less time."""
PATIENCE_S = 240


def bash_blocks(page: Path) -> list[str]:
    """Return what a page gives to the shell."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def last_line(block: str) -> str:
    return block.rstrip("\n").rpartition("\n")[2]


BLOCKS = bash_blocks(ROOT / "README.md")
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


class Newcomer:
    """Gives commands in a folder that holds the repository's files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def clone(cls, folder: Path) -> "Newcomer":
        """A clone, but for the packages, which are not installed twice."""
        root = folder / "newshelf"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        (root / ".venv").symlink_to(sys.prefix)
        towers = root.with_name("towers")
        towers.mkdir()
        (root / "configs" / "packaged.toml").write_text(SETTINGS + save_towers(towers))
        return cls(root)

    def leave(self) -> None:
        """Stop what still runs."""
        subprocess.run([str(self.root / "run"), "stop"], cwd=self.root, check=False)

    def server(self) -> ServerState:
        """The only one that runs."""
        (state,) = find_running(self.root / ".newshelf")
        return state

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

    def follow(
        self,
        page: str,
        *,
        codes: Mapping[str, int] | None = None,
        until: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Give each block of a tutorial to bash, in order; what each printed.

        Args:
            page: name of a file in ``docs``.
            codes: exit codes other than 0, by the block's last line.
            until: what a block prints after some time, by its last line; it is given until then.
        """
        codes, until = codes or {}, until or {}
        blocks = bash_blocks(self.root / "docs" / page)
        assert {*codes, *until} <= {last_line(block) for block in blocks}, f"{page} has changed"
        kept = self.root / "variables"
        kept.write_text("")
        printed: list[str] = []
        for block in blocks:
            last = last_line(block)
            lines = re.findall(r"^[a-z]+=.*$", block, flags=re.MULTILINE)
            names = " ".join(name for line in lines for name in re.findall(r"\b([a-z]+)=", line))
            keep = f"declare -p {names} >> {kept}" if names else ""
            script = "\n".join(["set -euo pipefail", f"source {kept}", block, keep])
            end_s = time.monotonic() + PATIENCE_S
            printed.append(self._bash(script, codes.get(last, 0)))
            while not re.search(until.get(last, ""), printed[-1]):
                assert time.monotonic() < end_s, printed[-1]
                time.sleep(0.2)
                printed[-1] = self._bash(script, codes.get(last, 0))
        return printed

    def _bash(self, script: str, code: int) -> str:
        for given, instead in INSTEAD.items():
            script = script.replace(given, instead)
        if USUAL in script:
            gateway = self.server().gateway
            assert gateway is not None
            script = script.replace(USUAL, gateway.url)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.root,
            # Lines are as long as in the documents.
            env={**os.environ, "COLUMNS": "160"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == code, f"{script}\n{done.stdout}"
        return done.stdout
