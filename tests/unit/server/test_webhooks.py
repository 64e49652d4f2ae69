"""Webhooks, received by a real HTTP server."""

import hashlib
import hmac
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from newshelf.errors import SettingsError
from newshelf.server import webhooks
from newshelf.server.webhooks import Webhooks
from tests.receiver import Receiver, receiver, settings_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_PAUSES_S", (0.0, 0.01, 0.01, 0.01))


@pytest.fixture
def received() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return tmp_path / "webhooks.key"


def test_an_event_is_signed_with_its_time(received: Receiver, secret: Path) -> None:
    sender = Webhooks(settings_of(received.url, secret=secret))
    sender.send("promoted", "it is better", rollout="spring", wait=True)
    headers, body = received.arrived.get_nowait()
    event = json.loads(body)
    assert event | {"id": ""} == {
        "id": "", "event": "promoted", "reason": "it is better", "rollout": "spring",
    }  # fmt: skip
    assert headers["Content-Type"] == "application/json"
    # As the page tells receivers to check it.
    key = bytes.fromhex(secret.read_text())
    signed = headers["X-Newshelf-Timestamp"].encode() + b"." + body
    wanted = hmac.new(key, signed, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(headers["X-Newshelf-Signature"], wanted)
    assert secret.stat().st_mode & 0o077 == 0


def test_a_delivery_is_repeated_with_the_same_id(received: Receiver, secret: Path) -> None:
    received.statuses = [500, 301, 404]
    sender = Webhooks(settings_of(received.url, secret=secret))
    sender.send("drift", "prices", wait=True)
    bodies = [received.arrived.get_nowait()[1] for _ in range(4)]
    assert len(set(bodies)) == 1
    assert received.arrived.empty()


def test_what_fails_for_good_is_logged_and_the_next_is_delivered(
    received: Receiver, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As the processes log that send webhooks.
    caplog.set_level(logging.INFO)
    received.statuses = [500] * 4
    sender = Webhooks(settings_of(received.url, secret=secret))
    sender.send("drift", "first", wait=True)
    sender.send("drift", "second", wait=True)
    reasons = [json.loads(received.arrived.get_nowait()[1])["reason"] for _ in range(5)]
    assert reasons == ["first"] * 4 + ["second"]
    failed = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert ["first" in one.getMessage() for one in failed] == [True]
    # The URL may be a secret.
    assert "token" not in caplog.text


def test_a_silent_and_an_absent_receiver_are_given_up(
    received: Receiver,
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks, "_TIMEOUT_S", 0.05)
    received.free.clear()
    with socket.socket() as reserved:
        # Bound and not listening: connections are refused.
        reserved.bind(("127.0.0.1", 0))
        absent = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
        sender = Webhooks(settings_of(received.url, absent, secret=secret))
        sender.send("aborted", "why", wait=True)
    assert "ReadTimeout" in caplog.text
    assert "ConnectError" in caplog.text
    assert caplog.text.count("failed for good") == 2


def test_a_caller_does_not_wait_and_the_queue_is_bounded(
    received: Receiver,
    secret: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhooks, "_WAITING", 3)
    received.free.clear()
    sender = Webhooks(settings_of(received.url, secret=secret))
    sender.send("drift", "0")
    assert received.next()["reason"] == "0"
    for number in range(1, 6):
        sender.send("drift", str(number))
    assert caplog.text.count("was dropped") == 2
    received.free.set()
    assert [received.next()["reason"] for _ in range(3)] == ["1", "2", "3"]


def test_only_chosen_events_are_sent(received: Receiver, secret: Path) -> None:
    sender = Webhooks(settings_of(received.url, secret=secret, events=["drift"]))
    for event in ("ramp", "promoted", "drift"):
        sender.send(event, "", wait=True)
    assert received.next()["event"] == "drift"
    assert received.arrived.empty()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"urls": ["http://hooks.example/secret"], "secret": "key"}, "https://"),
        ({"urls": ["http://localhost.example/secret"], "secret": "key"}, "https://"),
        ({"urls": ["ftp://hooks.example/secret"], "secret": "key"}, "urls.0"),
        ({"urls": ["hooks"], "secret": "key"}, "urls.0"),
        ({"urls": ["https://hooks.example/secret"]}, "urls need a secret"),
        ({"events": ["promotion"]}, "events.0"),
        ({"url": "https://hooks.example/secret"}, "url"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        settings_of(*settings.pop("urls", ()), **settings)


def test_secure_and_local_urls_are_accepted_and_others_where_allowed() -> None:
    safe = ["https://hooks.example", "http://localhost:1", "http://127.0.0.1", "http://[::1]:9/x"]
    assert len(settings_of(*safe, secret="key").urls) == 4
    assert settings_of("http://hooks.internal/", secret="key", allow_http=True).urls


def test_a_secret_that_is_no_key_is_refused(secret: Path) -> None:
    secret.write_text("short\n")
    with pytest.raises(SettingsError, match=r"webhooks\.key"):
        Webhooks(settings_of("https://hooks.example", secret=secret))


def test_nothing_is_written_next_to_a_secret_that_is_there(secret: Path) -> None:
    secret.write_text("ab" * 32)
    Webhooks(settings_of("https://hooks.example", secret=secret))
    assert list(secret.parent.iterdir()) == [secret]


def test_no_failure_ends_the_thread_that_sends(
    received: Receiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Webhooks(settings_of(received.url, secret=secret))
    with monkeypatch.context() as patched:
        patched.setattr(webhooks.httpx, "post", lambda *_, **__: 1 / 0)
        sender.send("drift", "first", wait=True)
    sender.send("drift", "second", wait=True)
    assert json.loads(received.arrived.get_nowait()[1])["reason"] == "second"
