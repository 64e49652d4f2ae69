"""A connection of the event loop's own, on which answers are stored without a thread.

A thread that writes has to get Python's lock back after each step of the driver, from an event
loop that is busy with requests; and while PostgreSQL waits for the disk, the next answers wait
for that thread. A few lanes side by side wait for neither: PostgreSQL commits them together.
"""

import logging
from collections.abc import Sequence
from typing import Any

import psycopg

from newshelf.rollout.records import Exposure
from newshelf.rollout.store.database import Database
from newshelf.rollout.store.write import exposures_statement

__all__ = ["Lane"]

_LOG = logging.getLogger(__name__)


class Lane:
    """One connection to PostgreSQL, opened when it is needed; used by one task at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def write(self, answers: Sequence[Exposure]) -> bool:
        """Try once to store at most ``MOST_ROWS`` answers, all or none.

        Returns:
            Whether they are stored. If not, for whatever reason, they may be there nevertheless,
            when only the answer to the commit was lost: storing them again is safe.
        """
        try:
            statement = exposures_statement(self._database.dialect, answers)
            if self._connection is None:
                self._connection = await self._database.connect_async()
            await self._connection.execute(*statement)
        except Exception as error:
            _LOG.info("%d answers take the other way: %s", len(answers), error)
            # Whatever state it is in: the next one is new.
            await self.close()
            return False
        return True

    async def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
