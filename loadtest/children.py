"""The generators' processes: started, listened to, and ended whatever happens."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadtest.plan import LoadPlan, plan_to_json
from newshelf.errors import CatalogError, ServerError, SettingsError, SetupError
from newshelf.pipeline.workspace import ROOT

__all__ = ["Children", "Message"]

_PROGRAM = "loadtest.generator"
_REFUSALS: dict[str, type[SetupError]] = {
    kind.code: kind for kind in (CatalogError, ServerError, SettingsError)
}
_MOST_CHARS = 2000
_ENDED = "ended"


@dataclass(frozen=True)
class Message:
    """What a child says; see ``loadtest.generator``."""

    stream: int
    about: str
    content: dict[str, Any]


class Children:
    """So many generators as the plan says; a context that ends them."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._processes: list[subprocess.Popen[str]] = []
        self._listeners: list[threading.Thread] = []
        self._messages: queue.Queue[Message] = queue.Queue()

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryDirectory(prefix="newshelf-load-")
        try:
            for stream in range(self._plan.processes):
                self._start(stream)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def ready(self) -> dict[str, str]:
        """Wait until all are, and give the versions of the models that they have met.

        Raises:
            SetupError: one refuses: a CatalogError, ServerError or SettingsError.
        """
        models: dict[str, str] = {}
        for _ in self._processes:
            message = self._next()
            if message.about == "refused":
                kind = _REFUSALS.get(message.content["code"], SetupError)
                raise kind(message.content["message"])
            models |= message.content["models"]
        return models

    def start(self, start_ns: int) -> None:
        """Let all begin; what is measured starts at this moment of ``time.monotonic_ns``."""
        self._say_to_all(str(start_ns))

    def stop(self) -> None:
        """Let all send nothing more, and report."""
        self._say_to_all("stop")

    def messages(self) -> Iterator[Message]:
        """What they say until all are done."""
        running = len(self._processes)
        while running:
            message = self._next()
            running -= message.about == "done"
            yield message

    def _start(self, stream: int) -> None:
        with self._errors_of(stream).open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                text=True,
            )
        self._processes.append(process)
        listener = threading.Thread(target=self._listen, args=(stream, process), daemon=True)
        listener.start()
        self._listeners.append(listener)
        # By standard input: the token in the headers is for no list of processes.
        plan = json.loads(plan_to_json(self._plan))
        _say(process, json.dumps({"plan": plan, "stream": stream}))

    def _listen(self, stream: int, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            ((about, content),) = json.loads(line).items()
            self._messages.put(Message(stream, about, content))
        self._messages.put(Message(stream, _ENDED, {}))

    def _next(self) -> Message:
        while True:
            message = self._messages.get()
            if message.about != _ENDED:
                return message
            if self._processes[message.stream].wait():
                reason = self._errors_of(message.stream).read_text()[-_MOST_CHARS:].strip()
                raise ServerError(f"{_PROGRAM} failed: {reason}")

    def _errors_of(self, stream: int) -> Path:
        return Path(self._errors.name) / f"{stream}.txt"

    def _say_to_all(self, line: str) -> None:
        for process in self._processes:
            _say(process, line)

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process, listener in zip(self._processes, self._listeners, strict=False):
            process.wait()
            listener.join()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._errors.cleanup()


def _say(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is None:
        raise RuntimeError("the generator's input was not piped")
    # One that has ended has its say by its exit code.
    with suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()
