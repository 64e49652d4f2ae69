"""The shelf's process: ``python -m newshelf.shelf PLAN``."""

import os
import socket
import sys
import threading
import uuid

from filelock import FileLock, Timeout

from newshelf.errors import ServerError
from newshelf.server.process import give_way
from newshelf.server.program import ShelfPlan, run_program, until_signalled
from newshelf.shelf.follow import Follower
from newshelf.shelf.words import WORDS_FOLDER, keep_words
from newshelf.store.store import EventStore

_NICE = 5
"""Workers that answer have the cores first."""
_SWITCH_S = 0.0005
"""The encoder's thread otherwise waits 5 ms for each step between two calls of its runtime."""
_LOCK_S = 10.0


def run_shelf(plan: ShelfPlan) -> None:
    """Follow the store's changes until SIGTERM or SIGINT."""
    ended = until_signalled()
    give_way(_NICE)
    sys.setswitchinterval(_SWITCH_S)
    plan.folder.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    holder = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    try:
        with (
            FileLock(plan.folder / ".lock", timeout=_LOCK_S),
            EventStore.open(plan.store_url) as store,
        ):
            # Its commits wait for the disk; the workers' segments must not.
            followed = plan.folder / WORDS_FOLDER, store.items, ended
            threading.Thread(target=keep_words, args=followed, daemon=True).start()
            Follower(store, plan, host=host, holder=holder).run(ended)
    except Timeout as error:
        raise ServerError(f"another process writes the shelf {plan.folder}") from error


if __name__ == "__main__":
    code = run_program(ShelfPlan, run_shelf)
    sys.stderr.flush()
    # A fold in progress is not awaited: it is repeated after the next start.
    os._exit(code)
