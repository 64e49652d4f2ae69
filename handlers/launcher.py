"""The launcher: the process that TorchServe starts as a worker, if a model is loaded once for all::

    TorchServe --starts--> launcher --asks--> preloader --forks--> worker
         ^------------------ the worker's socket ------------------->^

A launcher accepts TorchServe's connection at once. TorchServe waits two minutes for that, whatever
``startupTimeout`` is, and only then begins to count it. The first launcher starts the preloader,
which loads the model, answers the warm-up and then waits. Every launcher sends it TorchServe's
command line, the connection and its own output, and gets a worker within milliseconds, which shares
the loaded model's memory. Then it waits: it ends with its worker's exit code when the worker ends,
and the worker ends with it, so TorchServe deals with one process.

If any of this fails, the process continues as the worker itself, and loads the model.
"""

import contextlib
import fcntl
import json
import os
import platform
import socket
import sys
from collections.abc import Sequence

from newshelf.serving.model_config import preloads, read_model_config

_SOCKET = ".preloader"
"""In the unpacked archive, which only this user can read; next to it is a lock."""
_MESSAGE = 65_536
_CONNECTED_S = 30.0
"""As TorchServe's worker waits for its frontend."""
_ENDED = '"the preloader has ended"'


def launch(archive: str, command: Sequence[str]) -> None:
    """Let the preloader fork this worker, and end with it.

    Args:
        archive: the folder of the unpacked archive.
        command: the worker's script and its arguments, as TorchServe gave them.

    Returns:
        Only where this process must be the worker itself.
    """
    if not preloads(read_model_config(archive)) or "unix" not in command:
        return
    connection = _accept(command[command.index("--sock-name") + 1])
    try:
        worker = _worker(archive, command, connection)
    except (OSError, AttributeError) as error:
        # AttributeError: a system without pidfd_open.
        print(f"no preloaded worker ({error}): this one loads the model itself", flush=True)
        from handlers.worker_fork import be_worker  # noqa: PLC0415

        be_worker(command, connection)
    connection.close()
    # Nothing, where the preloader has ended before the worker.
    code = worker.recv(1)
    os._exit(code[0] if code else 1)


def _accept(name: str) -> socket.socket:
    """Listen where TorchServe expects its worker, say so, and return the connection.

    Raises:
        TimeoutError: TorchServe has not connected.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # noqa: PTH108
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(name)
        listening.listen(1)
        listening.settimeout(_CONNECTED_S)
        print(
            f"[PID]{os.getpid()}",
            "Torch worker started.",
            f"Python runtime: {platform.python_version()}",
            sep="\n",
            flush=True,
        )
        connection, _ = listening.accept()
    connection.setblocking(True)
    return connection


def _worker(archive: str, command: Sequence[str], connection: socket.socket) -> socket.socket:
    """A socket that gives the new worker's exit code, and is closed when it ends.

    Raises:
        OSError: there is none.
    """
    ours, its = socket.socketpair()
    with its, _preloader(archive) as preloader:
        handed = [sys.stdout.fileno(), sys.stderr.fileno(), its.fileno(), connection.fileno()]
        socket.send_fds(preloader, [json.dumps(command).encode()], handed)
        try:
            refusal = json.loads(preloader.recv(_MESSAGE) or _ENDED)
        except ConnectionResetError:
            refusal = json.loads(_ENDED)
    if refusal is not None:
        raise OSError(refusal)
    return ours


def _preloader(archive: str) -> socket.socket:
    """A connection to the archive's preloader, which is started when none runs."""
    path = os.path.join(archive, _SOCKET)  # noqa: PTH118
    connection = socket.socket(socket.AF_UNIX)
    # One launcher at a time: the others find what the first one started.
    with open(f"{path}.lock", "w", encoding="ascii") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            _start(path)
            connection.connect(path)
    return connection


def _start(path: str) -> None:
    """Start a preloader that listens at ``path`` and ends when TorchServe does."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        server = os.pidfd_open(os.getppid())
        given = (listening.fileno(), server)
        try:
            for one in given:
                os.set_inheritable(one, True)
            _spawn([sys.executable, "-P", "-m", "handlers.worker_fork", *map(str, given)])
        finally:
            os.close(server)


def _spawn(words: list[str]) -> None:
    """Start a process that is nobody's child, so that it leaves no zombie when it ends."""
    between = os.fork()
    if between == 0:
        try:
            os.posix_spawn(words[0], words, os.environ)
        finally:
            os._exit(0)
    os.waitpid(between, 0)
