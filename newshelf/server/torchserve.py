"""TorchServe as a process: its command line, its environment, its start."""

import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from newshelf.config import LogSettings
from newshelf.errors import ServerError
from newshelf.server.java import find_java
from newshelf.server.keys import KEY_FILE
from newshelf.server.logs import keep_earlier
from newshelf.server.ports import Ports, require_free
from newshelf.server.process import start_session
from newshelf.server.properties import (
    final_properties,
    ports_of,
    read_properties,
    write_properties,
)
from newshelf.server.state import ServerState, new_temp, running_state

__all__ = ["ServerPlan", "start"]

_MAIN = "org.pytorch.serve.ModelServer"
_KEPT_OUT = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""PYTHONPATH: the workers must import the archive's newshelf, not the repository's."""


@dataclass(frozen=True)
class ServerPlan:
    """What to start, and from where."""

    root: Path
    """The folder of config.properties and deploy/torchserve."""
    directory: Path
    """TorchServe's working directory; made when it is missing."""
    model_store: Path
    models: Mapping[str, Path]
    """The archive of each model, inside ``model_store``."""
    catalog: str
    ports: Ports | None = None
    """None takes those of config.properties."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """TorchServe's properties that are set otherwise than in config.properties."""
    logs: LogSettings = field(default_factory=LogSettings)


def start(plan: ServerPlan) -> ServerState:
    """Start TorchServe and write down what was started; it is not ready yet.

    ``torchserve --start`` is not used: it keeps one process id file per machine, so a
    second server (a test's, another user's) could not run beside the first.

    Raises:
        ServerError: one runs already from this directory, or a port is taken, or Java or
            an archive is missing.
    """
    running = running_state(plan.directory)
    if running is not None:
        raise ServerError(
            f"already running at {running.inference_url} (process {running.process.pid}); "
            "./run stop ends it"
        )
    properties = final_properties(
        read_properties(plan.root / "config.properties"),
        root=plan.root,
        ports=plan.ports,
        model_store=plan.model_store,
        models=plan.models,
    ) | dict(plan.properties)
    ports = ports_of(properties)
    require_free(ports)
    directory = _prepare(plan.directory, plan.logs.kept)
    write_properties(directory / "config.properties", properties)
    temp = new_temp()
    process = start_session(
        _command(plan, properties, directory, temp),
        cwd=directory,
        env=_environment(os.environ, directory),
        log=directory / "torchserve.log",
        kept=plan.logs.kept,
    )
    state = ServerState(
        directory=directory,
        process=process,
        ports=ports,
        temp=temp,
        models={name: path.name for name, path in plan.models.items()},
        catalog=plan.catalog,
    )
    state.save()
    return state


def _prepare(directory: Path, kept: int) -> Path:
    """Make the directory private, and put away what the last run left."""
    directory = directory.resolve()
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    (directory / KEY_FILE).unlink(missing_ok=True)
    # Whoever waits for readiness reads it, so it must be this start's.
    keep_earlier(directory / "logs" / "model_log.log", kept)
    return directory


def _command(
    plan: ServerPlan, properties: Mapping[str, str], directory: Path, temp: Path
) -> list[str]:
    home = _torchserve_home()
    log_config = (plan.root / "deploy" / "torchserve" / "log4j2.xml").resolve()
    return [
        str(find_java()),
        # Java takes the last of repeated flags, so the file's may override none of ours.
        *shlex.split(properties.get("vmargs", "")),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile={log_config.as_uri()}",
        f"-Dnewshelf.log={directory / 'torchserve.log'}",
        f"-Dnewshelf.logBytes={plan.logs.max_bytes}",
        f"-Dnewshelf.logsKept={plan.logs.kept}",
        f"-Djava.io.tmpdir={temp}",
        "-cp",
        str(home / "ts" / "frontend" / "*"),
        _MAIN,
        "--python",
        sys.executable,
        "--ts-config-file",
        str(directory / "config.properties"),
        "--model-store",
        str(plan.model_store.resolve()),
        # No snapshot: a start goes by the properties alone, never by what ran before.
        "--no-config-snapshot",
    ]


def _torchserve_home() -> Path:
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise ServerError("TorchServe is not installed; run Newshelf through ./run")
    return Path(spec.origin).resolve().parents[1]


def _environment(environ: Mapping[str, str], directory: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        # TS_CONFIG_FILE and its like would override the properties.
        if name not in _KEPT_OUT and not name.startswith("TS_")
    }
    logs = str(directory / "logs")
    own = {"LOG_LOCATION": logs, "METRICS_LOCATION": logs}
    # NumPy's products in a worker are small: threads that wait for the next one by spinning
    # would take the cores of the other workers.
    return {"OPENBLAS_NUM_THREADS": "1"} | kept | own
