"""The token of TorchServe's key file, renewed and read again."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from newshelf.config import GatewaySettings
from newshelf.errors import Unavailable
from newshelf.gateway.models import Models
from newshelf.gateway.upstream import Tokens, Upstream
from newshelf.serving.protocol import Deadline
from tests.unit.gateway.fake_torchserve import Asked, FakeTorchServe


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "key_file.json"


def write(path: Path, token: str, lifetime: timedelta = timedelta(hours=1)) -> None:
    key = {"key": token, "expiration time": (datetime.now(UTC) + lifetime).isoformat()}
    path.touch(0o600)
    path.write_text(json.dumps({"inference": key, "management": key, "API": {"key": "api"}}))


def ask(torchserve: FakeTorchServe, tokens: Tokens) -> int:
    async def main() -> int:
        models = Models(torchserve.url, tokens, GatewaySettings())
        try:
            reply = await models.ask("recommender", "", b"{}", Deadline.after(20_000))
            return reply.status
        finally:
            await models.close()

    return asyncio.run(main())


def test_the_files_token_is_sent(torchserve: FakeTorchServe, key_file: Path) -> None:
    torchserve.token = "one"
    write(key_file, "one")
    tokens = Tokens(key_file, None)
    tokens.read()
    assert ask(torchserve, tokens) == 200
    assert len(torchserve.asked) == 1


def test_a_token_that_somebody_renewed_is_read_and_the_request_sent_again(
    torchserve: FakeTorchServe, key_file: Path
) -> None:
    write(key_file, "old")
    tokens = Tokens(key_file, None)
    tokens.read()
    torchserve.token = "new"
    write(key_file, "new")
    assert ask(torchserve, tokens) == 200
    assert [asked.headers["authorization"] for asked in torchserve.asked] == [
        "Bearer old",
        "Bearer new",
    ]


def test_an_expired_token_is_renewed_with_the_api_key(
    torchserve: FakeTorchServe, key_file: Path
) -> None:
    write(key_file, "old", timedelta(seconds=-1))

    async def renew(asked: Asked, writer: asyncio.StreamWriter) -> None:
        assert asked.path == "/token?type=inference"
        assert asked.headers["authorization"] == "Bearer api"
        write(key_file, "new")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with FakeTorchServe(always=renew) as management:
        tokens = Tokens(key_file, Upstream(management.url, connections=1, retry_share=0))
        tokens.read()
        assert tokens.stale()
        asyncio.run(tokens.refresh(Deadline.after(20_000)))
        assert not tokens.stale()
    torchserve.token = "new"
    assert ask(torchserve, tokens) == 200


def test_a_refused_renewal_is_unavailable(key_file: Path) -> None:
    write(key_file, "old", timedelta(seconds=-1))

    async def refuse(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")

    with FakeTorchServe(always=refuse) as management:
        tokens = Tokens(key_file, Upstream(management.url, connections=1, retry_share=0))
        with pytest.raises(Unavailable, match="not renewed"):
            asyncio.run(tokens.refresh(Deadline.after(20_000)))


def test_a_key_file_that_is_gone_is_unavailable(torchserve: FakeTorchServe, key_file: Path) -> None:
    torchserve.token = "one"
    with pytest.raises(Unavailable, match="key file"):
        ask(torchserve, Tokens(key_file, None))


def test_where_no_token_is_asked_for_none_is_sent(torchserve: FakeTorchServe) -> None:
    assert ask(torchserve, Tokens(None, None)) == 200
    assert "authorization" not in torchserve.asked[0].headers
    assert orjson.loads(torchserve.asked[0].body) == {}
