"""The shelf's process: ``python -m newshelf.shelf PLAN``, which supervises a child process."""

import os
import socket
import sys
import threading
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

from newshelf.errors import NewshelfError, ServerError
from newshelf.files import read_model
from newshelf.server.shelf import ShelfPlan
from newshelf.server.supervise import CHILD, log_to_stderr, supervise, until_signalled

_NICE = 5
"""Workers that answer have the cores first."""
_LOCK_S = 10.0


def run_shelf(plan: ShelfPlan) -> None:
    """Follow the store's changes until SIGTERM or SIGINT.

    Raises:
        SettingsError: the event store cannot be opened.
        ServerError: another process writes this shelf.
    """
    # The supervisor does without them.
    from newshelf.shelf.follow import Follower  # noqa: PLC0415
    from newshelf.shelf.words import WORDS_FOLDER, keep_words  # noqa: PLC0415
    from newshelf.store.store import EventStore  # noqa: PLC0415

    ended = until_signalled()
    os.nice(_NICE)
    plan.folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    holder = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    try:
        with (
            FileLock(plan.folder / ".lock", timeout=_LOCK_S),
            EventStore.open(plan.store_url) as store,
        ):
            # Its commits wait for the disk; the workers' segments must not.
            followed = plan.folder / WORDS_FOLDER, store.items, ended, plan.settings.poll_ms / 1000
            threading.Thread(target=keep_words, args=followed, daemon=True).start()
            Follower(store, plan, host=host, holder=holder).run(ended)
    except Timeout as error:
        raise ServerError(f"another process writes the shelf {plan.folder}") from error


def main(arguments: list[str]) -> int:
    """Run the program; return its exit code."""
    is_child = arguments[1:] == [CHILD]
    if len(arguments) != 1 + is_child:
        print("usage: python -m newshelf.shelf PLAN", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        plan = read_model(path, ShelfPlan, "plan of a shelf")
        if is_child:
            log_to_stderr()
            run_shelf(plan)
        else:
            supervise("newshelf.shelf", path, plan.logs)
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # A fold in progress is not awaited: it is repeated after the next start.
    os._exit(code)
