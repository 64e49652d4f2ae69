"""The preloader, which loads a model once and forks its workers; see ``handlers.launcher``.

A fork shares the parent's memory, page by page until either writes to it, and has only the thread
that forked. So each worker computes with one thread, its own, and starts decoding threads after the
fork.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import logging
import os
import selectors
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ts.arg_parser import ArgParser
from ts.model_service_worker import TorchModelServiceWorker

from handlers.adapter import Adapter


def be_worker(command: Sequence[str], connection: socket.socket) -> NoReturn:
    """Serve one connection of TorchServe's frontend in this process, then end the process.

    Args:
        command: the worker's script and its arguments, as TorchServe gave them.
        connection: on which the frontend is about to ask for the model to be loaded.
    """
    try:
        logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
        sys.argv = list(command)
        given = ArgParser.model_service_worker_args().parse_args()
        worker = TorchModelServiceWorker(
            given.sock_type,
            given.sock_name,
            given.host,
            given.port,
            given.metrics_config,
            given.async_comm,
        )
        # The frontend has the launcher's id so far: it keeps the last one it reads.
        logging.info("[PID]%d", os.getpid())
        worker.handle_connection(connection)
    except SystemExit:
        pass
    except BaseException:
        logging.exception("the worker has failed")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        # Not the usual way out: a fork would wait for threads that only its parent has.
        os._exit(1)


_IDLE_S = 10.0
"""Seconds without a worker after which the model is no longer served."""
_ASKED_S = 5.0
_MESSAGE = 65_536
_ARCHIVE = Path(__file__).resolve().parents[1]
_LOG = logging.getLogger(__name__)


def main(listening: int, server: int) -> None:
    """Load the model of the archive that this file lies in; fork workers until none is left.

    Args:
        listening: descriptor of the socket on which launchers ask.
        server: descriptor that is readable when TorchServe has ended.
    """
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    # Threads of its own would be missing in the workers.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with socket.socket(fileno=listening) as asked:
        _preload()
        _LOG.info("preloaded: process %d forks the workers", os.getpid())
        _write_to_own_log()
        try:
            _Preloader(asked, server).serve()
        except Exception:
            _LOG.exception("%s: the preloader has failed", _ARCHIVE)
            raise SystemExit(1) from None


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


def _write_to_own_log() -> None:
    """Write to ``preloader.log`` in the folder of TorchServe's logs from here on.

    The output so far is the first launcher's, which TorchServe reads until its last holder
    closes it.
    """
    folder = Path(os.environ.get("LOG_LOCATION") or _ARCHIVE)
    log = os.open(folder / "preloader.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    os.close(log)
    os.close(nothing)


@dataclass(frozen=True, slots=True)
class _Worker:
    process: int
    launcher: int
    """Descriptor by which its launcher learns the exit code."""


class _Preloader:
    def __init__(self, asked: socket.socket, server: int) -> None:
        self._asked = asked
        self._server = server
        self._events = selectors.DefaultSelector()
        self._events.register(asked, selectors.EVENT_READ)
        self._events.register(server, selectors.EVENT_READ)
        self._workers: dict[int, _Worker] = {}
        """By the descriptor that is readable when the worker has ended."""

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
        # From here on a launcher starts another preloader; those that came before get a worker.
        Path(self._asked.getsockname()).unlink(missing_ok=True)
        self._asked.setblocking(False)
        while self._answer():
            pass

    def _bury(self, ended: int) -> None:
        self._events.unregister(ended)
        os.close(ended)
        worker = self._workers.pop(ended)
        _, status = os.waitpid(worker.process, 0)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            # Ended by a signal, encoded as shells do: SIGKILL is 137.
            code = 128 - code
            _LOG.warning("%s: worker %d was ended: %d", _ARCHIVE, worker.process, code)
        # The launcher may be gone, too.
        with contextlib.suppress(OSError):
            os.write(worker.launcher, bytes([code]))
        os.close(worker.launcher)

    def _answer(self) -> bool:
        """Fork the worker that one launcher asks for; whether one was there."""
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
                _LOG.warning("%s: no worker was forked: %s", _ARCHIVE, refusal)
            # A launcher that did not wait for the answer is gone, and with it the worker.
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(refusal).encode())
        return True

    def _fork(self, connection: socket.socket) -> None:
        message, given, _, _ = socket.recv_fds(connection, _MESSAGE, 4)
        try:
            command: list[str] = json.loads(message)
            output, errors, launcher, frontend = given
            process = os.fork()
            if process == 0:
                self._close_all()
                connection.close()
                _become_worker(command, output, errors, launcher, frontend)
            ended = os.pidfd_open(process)
            self._workers[ended] = _Worker(process, os.dup(launcher))
            self._events.register(ended, selectors.EVENT_READ)
        finally:
            for descriptor in given:
                os.close(descriptor)

    def _close_all(self) -> None:
        """Close, in a fork, what is the preloader's: a launcher waits for its last holder."""
        self._events.close()
        self._asked.close()
        for worker in self._workers.values():
            os.close(worker.launcher)


def _become_worker(
    command: list[str], output: int, errors: int, launcher: int, frontend: int
) -> NoReturn:
    """Run TorchServe's worker in this process, which is a fork, and end."""
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        _end_with(launcher)
        be_worker(command, socket.socket(fileno=frontend))
    finally:
        os._exit(1)


def _end_with(launcher: int) -> None:
    """Let the kernel end this process when the launcher ends, whatever either is busy with."""
    fcntl.fcntl(launcher, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(launcher, fcntl.F_GETFL)
    # SIGIO, which ends a process that does not handle it. Nothing is ever sent on this socket.
    fcntl.fcntl(launcher, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        os.read(launcher, 1)
    except BlockingIOError:
        return
    # It had ended before the kernel was asked to tell.
    os._exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
