"""Webhooks: events of rollouts, drift and retraining, sent to URLs of the operator.

The header ``X-Newshelf-Signature`` is the hexadecimal HMAC-SHA256, keyed with the secret, of the
header ``X-Newshelf-Timestamp``, a dot, and the body.
"""

import hmac
import json
import logging
import threading
import time
import uuid
from queue import Full, Queue

import httpx

from newshelf.config import WebhookSettings
from newshelf.files import secret_key

_LOG = logging.getLogger(__name__)
# It logs whole URLs at INFO, whose path and query may be secret.
logging.getLogger("httpx").setLevel(logging.WARNING)
_WAITING = 100
_TIMEOUT_S, _PAUSES_S = 10.0, (0.0, 1.0, 5.0, 25.0)


class Webhooks:
    """Sends events from a thread of its own, so that no caller waits for a receiver."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._secret = secret_key(settings.secret) if settings.secret else b""
        self._waiting: Queue[tuple[httpx.URL, bytes]] = Queue(_WAITING)
        threading.Thread(target=self._deliver_all, daemon=True).start()

    def send(self, event: str, reason: str, *, wait: bool = False, **fields: str) -> None:
        """Queue an event for every URL; ``wait`` until all were delivered, or have failed."""
        if event not in self._settings.events:
            return
        fields |= {"id": uuid.uuid4().hex, "event": event, "reason": reason}
        for url in self._settings.urls:
            try:
                self._waiting.put_nowait((httpx.URL(str(url)), json.dumps(fields).encode()))
            except Full:
                _LOG.error("webhook %s was dropped: %d others wait", fields, _WAITING)
        if wait:
            self._waiting.join()

    def _deliver_all(self) -> None:
        while True:
            url, body = self._waiting.get()
            if not any(self._deliver(url, body, pause_s) for pause_s in _PAUSES_S):
                _LOG.error("webhook failed for good: %s", body.decode())
            self._waiting.task_done()

    def _deliver(self, url: httpx.URL, body: bytes, pause_s: float) -> bool:
        time.sleep(pause_s)
        at = str(int(time.time()))
        signature = hmac.digest(self._secret, f"{at}.".encode() + body, "sha256").hex()
        headers = {"X-Newshelf-Timestamp": at, "X-Newshelf-Signature": signature}
        headers["Content-Type"] = "application/json"
        try:
            reply = httpx.post(url, content=body, headers=headers, timeout=_TIMEOUT_S)
            problem = "" if reply.is_success else f"status {reply.status_code}"
        except Exception as error:
            # Whatever it is: without this thread, nothing would be sent any more.
            problem = repr(error)
        if problem:
            # Path and query of a URL may be secret.
            _LOG.warning("webhook at %s: %s", url.host, problem)
        return not problem
