"""A PostgreSQL server of one's own, in a folder of its own, on a Unix socket."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from newshelf.errors import SetupError

__all__ = ["Postgres", "find_binaries"]

_START_S = 120.0
_PACKAGED = Path("/usr/lib/postgresql")
"""Where Debian puts it, by version."""
_USER = "newshelf"
_SERVER_USERS = ("postgres", "nobody")
"""PostgreSQL refuses to run as root; the first of these that there is runs it then."""


def find_binaries() -> Path:
    """The folder of ``postgres`` and ``initdb``: of the search path, or Debian's newest.

    Raises:
        SetupError: PostgreSQL is not installed.
    """
    found = shutil.which("postgres")
    on_path = [Path(found).resolve().parent] if found else []
    packaged = sorted(_PACKAGED.glob("*/bin"), key=lambda path: int(path.parent.name))
    for folder in (*on_path, *reversed(packaged)):
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise SetupError(
        "PostgreSQL is not installed, and the event store is tested with a real one: "
        "`apt-get install postgresql` (Debian, Ubuntu), or put postgres and initdb on the PATH"
    )


class Postgres:
    """A server that ends with its ``with`` block, and leaves nothing."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        """Make the database's files; the ``with`` block starts the server.

        Args:
            settings: such as ``fsync=off``.
        """
        self._binaries = find_binaries()
        self._settings = settings
        owner = _server_user()
        self._uid = None if owner is None else owner.pw_uid
        self._gid = None if owner is None else owner.pw_gid
        # Not below a test's folder: the path of a socket has at most 107 bytes, and another
        # user has to get there.
        self.folder = Path(tempfile.mkdtemp(prefix="newshelf-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        if owner is not None:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb",
            "--auth=trust",
            f"--username={_USER}",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            f"--pgdata={self._data}",
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except SetupError:
            shutil.rmtree(self.folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        if self._process is None:
            raise SetupError("this PostgreSQL is not running")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """As the event store takes it."""
        return f"postgresql+psycopg://{_USER}@/{database}?host={self.folder}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        with self._connect(database) as connection:
            connection.execute(statement)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            SetupError: it does not; the message has the end of its log.
        """
        options = [part for setting in self._settings for part in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres",
                    "-D",
                    self._data,
                    "-k",
                    self.folder,
                    "-c",
                    "listen_addresses=",
                    *options,
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._uid,
                group=self._gid,
                extra_groups=None if self._uid is None else (),
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SetupError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server; SIGINT breaks connections, SIGKILL lets it clean up nothing."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _answers(self) -> bool:
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user=_USER, dbname=database, autocommit=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            user=self._uid,
            group=self._gid,
            extra_groups=None if self._uid is None else (),
        )
        if done.returncode != 0:
            shutil.rmtree(self.folder)
            raise SetupError(f"{program} failed: {done.stderr.strip()}")


def _server_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(names[name] for name in _SERVER_USERS if name in names)
