"""Loads a model once, and forks its workers; see ``handlers.stand_in``.

A fork has the parent's memory, page by page until one of both writes to it, and of its threads
only the one that forked. So each worker computes with one thread, its own, and makes what other
threads it needs (those that decode) after the fork.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import logging
import os
import runpy
import selectors
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

# What TorchServe's worker imports, loaded before the forks.
import ts.model_service_worker  # noqa: F401

from handlers.adapter import Adapter

_IDLE_S = 10.0
"""Without a worker for so long, its model is not served any more."""
_ASKED_S = 5.0
_MESSAGE = 65_536
_ARCHIVE = Path(__file__).resolve().parents[1]
_LOG = logging.getLogger(__name__)


def main(listening: int, server: int) -> None:
    """Load the model of the archive that this file lies in; fork workers until none is left.

    Args:
        listening: descriptor of the socket on which stand-ins ask.
        server: descriptor that is readable when TorchServe has ended.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    # Threads of its own would be missing in the workers.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with socket.socket(fileno=listening) as asked:
        _preload()
        _LOG.info("preloaded: process %d forks the workers", os.getpid())
        _let_go_of_output()
        _Preloader(asked, server).serve()


def _preload() -> None:
    manifest = json.loads((_ARCHIVE / "MAR-INF" / "MANIFEST.json").read_text(encoding="utf-8"))
    module = importlib.import_module(manifest["model"]["handler"].removesuffix(".py"))
    [handler] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Adapter) and value is not Adapter
    ]
    handler.preload(_ARCHIVE)
    # The collector would write to every object's header, and so copy the pages of all of them.
    gc.collect()
    gc.freeze()


def _let_go_of_output() -> None:
    """It is the first stand-in's, of which TorchServe reads until the last holder closes it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)


class _Preloader:
    def __init__(self, asked: socket.socket, server: int) -> None:
        self._asked = asked
        self._server = server
        self._events = selectors.DefaultSelector()
        self._events.register(asked, selectors.EVENT_READ)
        self._events.register(server, selectors.EVENT_READ)
        self._workers: dict[int, int] = {}
        """Descriptor that is readable when the worker has ended → its process id."""

    def serve(self) -> None:
        """Fork workers, until TorchServe has ended or no worker is left for a while."""
        while True:
            ready = [key.fd for key, _ in self._events.select(_IDLE_S)]
            if self._server in ready or not (ready or self._workers):
                break
            for ended in self._workers.keys() & set(ready):
                self._bury(ended)
            if self._asked.fileno() in ready:
                self._answer()
        # From here on a stand-in starts another preloader; those that came before get a worker.
        Path(self._asked.getsockname()).unlink(missing_ok=True)
        self._asked.setblocking(False)
        while self._answer():
            pass

    def _bury(self, ended: int) -> None:
        self._events.unregister(ended)
        os.close(ended)
        os.waitpid(self._workers.pop(ended), 0)

    def _answer(self) -> bool:
        """Fork the worker that one stand-in asks for; whether one was there."""
        try:
            connection, _ = self._asked.accept()
        except BlockingIOError:
            return False
        with connection:
            refusal = None
            try:
                connection.settimeout(_ASKED_S)
                self._fork(connection)
            except (OSError, ValueError) as error:
                refusal = str(error)
            # A stand-in that did not wait for the answer is gone, and with it the worker.
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(refusal).encode())
        return True

    def _fork(self, connection: socket.socket) -> None:
        message, given, _, _ = socket.recv_fds(connection, _MESSAGE, 3)
        try:
            command: list[str] = json.loads(message)
            output, errors, stand_in = given
            worker = os.fork()
            if worker == 0:
                self._events.close()
                self._asked.close()
                connection.close()
                _be_worker(command, output, errors, stand_in)
            ended = os.pidfd_open(worker)
            self._workers[ended] = worker
            self._events.register(ended, selectors.EVENT_READ)
        finally:
            for descriptor in given:
                os.close(descriptor)


def _be_worker(command: Sequence[str], output: int, errors: int, stand_in: int) -> None:
    """Run TorchServe's worker in this process, which is a fork, and end."""
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        _end_with(stand_in)
        sys.argv = list(command)
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit:
        pass
    except BaseException:
        _LOG.exception("the worker has failed")
    finally:
        sys.stdout.flush()
        # Not the usual way out: it would wait for the threads that only the preloader has.
        os._exit(1)


def _end_with(stand_in: int) -> None:
    """Let the kernel end this process when the stand-in ends, whatever either is busy with."""
    fcntl.fcntl(stand_in, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(stand_in, fcntl.F_GETFL)
    # SIGIO, which ends a process that does not handle it. Nothing is ever sent on this socket.
    fcntl.fcntl(stand_in, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(stand_in, 1)
    except BlockingIOError:
        return
    # It had ended before the kernel was asked to tell.
    os._exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
