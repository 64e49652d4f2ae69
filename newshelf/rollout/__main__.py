"""The controller as a program: ``python -m newshelf.rollout PLAN``."""

import logging
import sys
from pathlib import Path

from newshelf.errors import NewshelfError
from newshelf.rollout.run import run
from newshelf.server.controller_plan import read_controller_plan

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run it; returns the exit code."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    for loud in ("httpx", "alembic"):
        logging.getLogger(loud).setLevel(logging.WARNING)
    if len(arguments) != 1:
        print("usage: python -m newshelf.rollout PLAN", file=sys.stderr)
        return 2
    try:
        run(read_controller_plan(Path(arguments[0])))
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
