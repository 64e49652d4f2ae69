"""State file of a running server, which any terminal can find, and TorchServe's key file."""

import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from newshelf.errors import ServerError
from newshelf.files import read_json, write_json
from newshelf.server.ports import HOST, Ports
from newshelf.server.process import ProcessRef, is_running, stop_session, uninterrupted

KEY_FILE = "key_file.json"
TEMP_PREFIX = "newshelf-"
_FILE = "state.json"
_OTHERS = 0o077


@dataclass(frozen=True)
class Key:
    """A bearer token."""

    token: str
    expires: datetime | None
    """With its time zone; None for the API key, which does not expire."""

    def expired(self, now: datetime) -> bool:
        """Return whether TorchServe refuses it at ``now``."""
        return self.expires is not None and self.expires <= now

    def header(self) -> dict[str, str]:
        """Return the HTTP header that carries it."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True)
class Keys:
    """TorchServe's tokens, one per purpose."""

    inference: Key
    management: Key
    api: Key
    """For new inference and management keys."""


def read_keys(path: Path) -> Keys:
    """Read TorchServe's key file."""
    try:
        if path.stat().st_mode & _OTHERS:
            raise ServerError(f"{path} can be read by other users; restart the server")
        table = read_json(path)
        return Keys(
            inference=_key(table["inference"]),
            management=_key(table["management"]),
            api=_key(table["API"]),
        )
    except OSError as error:
        raise ServerError(
            f"cannot read the key file {path}: {error.strerror}; is the server running "
            "(./run status)?"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{path} is not a key file of TorchServe 0.12: {error!r}") from error


def _key(entry: dict[str, Any]) -> Key:
    expires = entry.get("expiration time")
    # Java writes nanoseconds and Z; datetime reads both, keeping microseconds.
    return Key(entry["key"], None if expires is None else datetime.fromisoformat(expires))


@dataclass(frozen=True)
class GatewayState:
    """A started gateway."""

    process: ProcessRef
    """Its supervisor, which ends the other processes."""
    url: str
    log: str
    """The file of its output."""


@dataclass(frozen=True)
class ServerState:
    """A started server."""

    directory: Path
    """TorchServe's working directory: key file, properties, logs, and the state file."""
    process: ProcessRef
    ports: Ports
    temp: Path
    """Sockets and unpacked archives; a separate folder, since socket paths must be short."""
    models: dict[str, str]
    """File name of each model's archive."""
    catalog: str
    gateway: GatewayState | None = None
    controller: ProcessRef | None = None
    """Controller of rollouts; None without a gateway."""
    shelf: ProcessRef | None = None
    """Publishes changed products; None without a gateway, or if it is disabled."""

    @property
    def inference_url(self) -> str:
        """Address of predictions."""
        return f"http://{HOST}:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        """Address for managing models and renewing tokens."""
        return f"http://{HOST}:{self.ports.management}"

    @property
    def metrics_url(self) -> str:
        """Address of the Prometheus page."""
        return f"http://{HOST}:{self.ports.metrics}/metrics"

    @property
    def key_file(self) -> Path:
        """File of TorchServe's tokens."""
        return self.directory / KEY_FILE

    @property
    def log(self) -> Path:
        """Output of the frontend."""
        return self.directory / "torchserve.log"

    @property
    def model_log(self) -> Path:
        """Output of the workers."""
        return self.directory / "logs" / "model_log.log"

    def save(self) -> None:
        """Write the state file."""
        table = asdict(self) | {"directory": None, "temp": str(self.temp)}
        write_json(self.directory / _FILE, table)

    def end(self) -> None:
        """Stop its processes and remove its files, ignoring signals meanwhile."""
        with uninterrupted():
            if self.gateway is not None:
                # First, while its last requests still have a model.
                stop_session(self.gateway.process)
            for process in (self.controller, self.shelf):
                if process is not None:
                    stop_session(process)
            stop_session(self.process)
            self.key_file.unlink(missing_ok=True)
            if self.temp.name.startswith(TEMP_PREFIX) and self.temp.parent == _temp_root():
                shutil.rmtree(self.temp, ignore_errors=True)
            (self.directory / _FILE).unlink(missing_ok=True)


def read_state(directory: Path) -> ServerState | None:
    """Return the state in ``directory``, of a server that may have ended, or None."""
    path = directory / _FILE
    try:
        table = read_json(path)
        return ServerState(
            directory=directory,
            process=ProcessRef(**table["process"]),
            ports=Ports(**table["ports"]),
            temp=Path(table["temp"]),
            models=dict(table["models"]),
            catalog=str(table["catalog"]),
            gateway=_gateway(table.get("gateway")),
            controller=_process(table.get("controller")),
            shelf=_process(table.get("shelf")),
        )
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(f"{path} is damaged ({error!r}); remove it") from error


def _gateway(table: Any) -> GatewayState | None:
    if table is None:
        return None
    return GatewayState(**table | {"process": ProcessRef(**table["process"])})


def _process(table: Any) -> ProcessRef | None:
    return None if table is None else ProcessRef(**table)


def running_state(directory: Path) -> ServerState | None:
    """Return the state of the server that runs from ``directory``; clean up after a dead one."""
    state = read_state(directory)
    if state is None or is_running(state.process):
        return state
    # Its frontend is gone (killed, or the machine restarted); workers may still run.
    state.end()
    return None


def find_running(workspaces: Path) -> list[ServerState]:
    """Return the servers that run from any workspace in ``workspaces``."""
    directories = sorted(path.parent for path in workspaces.glob(f"*/server/{_FILE}"))
    return [state for directory in directories if (state := running_state(directory))]


def new_temp() -> Path:
    """Create a private temporary folder (mode 700)."""
    return Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=_temp_root()))


def _temp_root() -> Path:
    return Path(tempfile.gettempdir())
