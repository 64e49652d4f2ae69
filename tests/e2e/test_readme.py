"""The README's commands, as a newcomer would give them, in a copy of the repository."""

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from newshelf.pipeline.workspace import ROOT, servers
from tests.e2e.newcomer import BLOCKS, COMMANDS, Newcomer

pytestmark = pytest.mark.xdist_group("readme")


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


def check_first_tutorial(newcomer: Newcomer) -> None:
    served, new, told, again, kept, erased = newcomer.follow("tutorial-first-shop.md")
    assert "the shop window is at" in served
    assert json.loads(new)["items"][0]["source"].startswith("popular")
    assert json.loads(told)["accepted"] == 1
    assert "in your history" in json.loads(again)["items"][0]["reason"]
    assert [one["event_id"] for one in json.loads(kept)["feedback"]] == ["mia-1"]
    assert "of mia" in erased


def test_the_two_commands_that_set_everything_up_are_there() -> None:
    assert COMMANDS[0] == "./run serve"
    assert "./run test" in COMMANDS
    assert "./run check" in COMMANDS
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^\./run .*", ci, re.MULTILINE) == ["./run check", "./run test"]


def test_a_newcomer_follows_the_readme(newcomer: Newcomer) -> None:
    first = newcomer.serve_until_ready("./run serve")
    assert "sample: not made yet" in first
    assert "rank" in first
    assert "curl" in first

    assert "./run serve --detach" in COMMANDS
    check_first_tutorial(newcomer)
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
    # The README's other commands are those of the next tutorials, which find this server.
