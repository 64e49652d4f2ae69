"""The API of a TorchServe that loads, serves and unloads versions of the recommender."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from newshelf.server.ports import Ports
from newshelf.server.process import start_session, stop_session
from newshelf.server.state import TORCHSERVE, ServerState
from tests.answering import answering

FAR = "2999-01-01T00:00:00Z"


@dataclass
class FakeServer:
    """Answers as TorchServe 0.12 does."""

    default: str = "1"
    workers: dict[str, list[str]] = field(default_factory=lambda: {"1": ["READY", "READY"]})
    """Status of each worker, by version."""
    answers: dict[str, list[tuple[int, object]]] = field(default_factory=dict)
    """By version: the next ones; the last is repeated."""
    asked: list[str] = field(default_factory=list)

    def handle(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, object]:
        self.asked.append(f"{method} {path}")
        match [method, *path.strip("/").split("/")]:
            case ["GET", "models", "recommender"]:
                found: tuple[int, object] = 200, [self._told(self.default)]
            case ["GET", "models", "recommender", "all"]:
                found = 200, [self._told(version) for version in self.workers]
            case ["GET", "models", "recommender", version] if version in self.workers:
                found = 200, [self._told(version)]
            case ["POST", "models"]:
                version = query["url"][0].removeprefix("recommender-").removesuffix(".mar")
                self.workers[version] = ["LOADING"] * int(query["initial_workers"][0])
                found = 202, {"status": "begun"}
            case ["PUT", "models", "recommender", version, "set-default"]:
                self.default = version
                found = 200, {"status": "done"}
            case ["DELETE", "models", "recommender", version] if version != self.default:
                del self.workers[version]
                found = 200, {"status": "done"}
            case ["POST", "predictions", "recommender", version] if version in self.workers:
                next_ones = self.answers.get(version) or [(200, answer(version))]
                found = next_ones[0] if len(next_ones) == 1 else next_ones.pop(0)
            case _:
                found = 404, {"code": 404, "message": "no such version"}
        return found

    def _told(self, version: str) -> dict[str, object]:
        workers = [{"status": status} for status in self.workers[version]]
        return {"modelVersion": version, "workers": workers}


def answer(version: str, **other: object) -> dict[str, object]:
    index = f"index-of-{version}"
    return {"items": [{"id": "a"}], "model_version": version, "index_version": index, **other}


def state_at(port: int, folder: Path, **more: Any) -> ServerState:
    """Return the state of a server that answers on loopback, with keys of its own."""
    keys = {
        name: {"key": "k", "expiration time": FAR} for name in ("inference", "management", "API")
    }
    key_file = folder / "key_file.json"
    key_file.write_text(json.dumps(keys))
    key_file.chmod(0o600)
    fields = {"temp": folder, "models": {}, **more}
    return ServerState(folder, Ports(port, port), catalog="shop", **fields)


@contextmanager
def running(fake: FakeServer, folder: Path) -> Iterator[ServerState]:
    """Let it answer on loopback; the state of a server is in ``folder``."""
    process = start_session(["sleep", "600"], cwd=folder, env={}, log=folder / "log")
    with answering(fake.handle) as port:
        written = state_at(port, folder, processes={TORCHSERVE: process})
        written.save()
        yield written
    stop_session(process)
