"""State file of a running server, which any terminal can find, and TorchServe's key file."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError

from newshelf.errors import ServerError
from newshelf.files import problems, write_private
from newshelf.server.ports import HOST, Ports
from newshelf.server.process import ProcessRef, Service, is_running, stop_session, uninterrupted

KEY_FILE = "key_file.json"
TEMP_PREFIX = "newshelf-"
TORCHSERVE, GATEWAY, CONTROLLER, SHELF = "torchserve", "gateway", "controller", "shelf"
SUPERVISOR, STANDBY, SEARCH = "supervisor", "standby", "search"
"""Names of processes; those of the gateway are ``gateway-1`` and so on."""
_FILE = "state.json"
_DRAIN_S = 120.0
_NO_PROCESS = ProcessRef(0, 0.0, "")
_OTHERS = 0o077


class Key(BaseModel, frozen=True):
    """A bearer token."""

    token: str = Field(alias="key")
    expires: AwareDatetime | None = Field(None, alias="expiration time")
    """None for the API key, which does not expire."""

    def expired(self, now: datetime) -> bool:
        """Return whether TorchServe refuses it at ``now``."""
        return self.expires is not None and self.expires <= now

    def header(self) -> dict[str, str]:
        """Return the HTTP header that carries it."""
        return {"Authorization": f"Bearer {self.token}"}


class Keys(BaseModel, frozen=True):
    """TorchServe's tokens, one per purpose."""

    inference: Key
    management: Key
    api: Key = Field(alias="API")
    """For new inference and management keys."""


def read_keys(path: Path) -> Keys:
    """Read TorchServe's key file."""
    try:
        if path.stat().st_mode & _OTHERS:
            raise ServerError(f"{path} can be read by other users; restart the server")
        return Keys.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ServerError(
            f"cannot read the key file {path}: {error.strerror}; is the server running "
            "(./run status)?"
        ) from error
    except ValidationError as error:
        raise ServerError(f"{path} is not a key file of TorchServe 0.12: {error!r}") from error


@dataclass(frozen=True)
class GatewayState:
    """A started gateway."""

    url: str


@dataclass(frozen=True)
class Restart:
    """A process that was replaced."""

    time: str
    name: str
    reason: str


@dataclass(frozen=True)
class ServerState:
    """A started server."""

    directory: Path
    """TorchServe's working directory: key file, properties, logs, and the state file."""
    ports: Ports
    temp: Path
    """Sockets and unpacked archives; a separate folder, since socket paths must be short."""
    models: dict[str, str]
    """File name of each model's archive."""
    catalog: str
    gateway: GatewayState | None = None
    services: Mapping[str, Service] = field(default_factory=dict)
    processes: Mapping[str, ProcessRef] = field(default_factory=dict)
    """Of the services that run."""
    restarts: tuple[Restart, ...] = ()
    """The last ones, the newest at the end."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """All restarts, by name."""

    @property
    def process(self) -> ProcessRef:
        """TorchServe's frontend; one that has ended, while there is none."""
        return self.processes.get(TORCHSERVE, _NO_PROCESS)

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
        write_private(self.directory / _FILE, _STATE.dump_json(self, indent=2).decode())

    def start(self, service: Service, *, kept: int = 0) -> "ServerState":
        """Start a service, and save the state so that any terminal can stop it."""
        state = replace(
            self,
            services={**self.services, service.name: service},
            processes={**self.processes, service.name: service.start(kept=kept)},
        )
        state.save()
        return state

    def without(self, name: str, reason: str) -> "ServerState":
        """Return and save the state without a process, which has ended."""
        ended = Restart(datetime.now(UTC).isoformat(timespec="seconds"), name, reason)
        processes = {other: one for other, one in self.processes.items() if other != name}
        counts = {**self.counts, name: self.counts.get(name, 0) + 1}
        restarts = (*self.restarts, ended)[-100:]
        state = replace(self, processes=processes, restarts=restarts, counts=counts)
        state.save()
        return state

    def current(self) -> "ServerState":
        """Return the state now: the supervisor replaces processes."""
        return read_state(self.directory) or self

    def end(self) -> None:
        """Stop the server: the supervisor drains it, and what is left is stopped from here."""
        with uninterrupted():
            supervisor = self.current().processes.get(SUPERVISOR)
            if supervisor is not None:
                stop_session(supervisor, grace_s=_DRAIN_S)
            self.current().drain()

    def drain(self) -> None:
        """Stop its processes but the supervisor, and remove its files, ignoring signals."""
        with uninterrupted():
            # The gateway before TorchServe: its last requests still have a model.
            for kind in (SEARCH, STANDBY, GATEWAY, CONTROLLER, SHELF, TORCHSERVE):
                for name in self.processes:
                    if name.startswith(kind):
                        stop_session(self.processes[name])
            self.key_file.unlink(missing_ok=True)
            if self.temp.name.startswith(TEMP_PREFIX) and self.temp.parent == _temp_root():
                shutil.rmtree(self.temp, ignore_errors=True)
            (self.directory / _FILE).unlink(missing_ok=True)


_STATE = TypeAdapter(ServerState)


def read_state(directory: Path) -> ServerState | None:
    """Return the state in ``directory``, of a server that may have ended, or None."""
    path = directory / _FILE
    try:
        return replace(_STATE.validate_json(path.read_bytes()), directory=directory)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ServerError(f"{path} is damaged ({problems(error)}); remove it") from error


def running_state(directory: Path) -> ServerState | None:
    """Return the state of the server that runs from ``directory``; clean up after a dead one."""
    state = read_state(directory)
    if state is None:
        return None
    if any(is_running(one) for one in state.processes.values()):
        return state
    # Killed, or the machine restarted; workers may still run.
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
