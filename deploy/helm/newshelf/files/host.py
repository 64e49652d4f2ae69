"""Commands of a container that are no programs of Newshelf: ``python host.py COMMAND HOST.json``.

``prepare``
    Waits for the archives, then writes the plans, keys and popular products that the programs read.
``models``
    Runs TorchServe until SIGTERM.
``serve``
    Does both and runs the gateway too: everything in one container, as KServe starts it.
``seed``
    Stores the catalogue's products, so that they can be changed while they are served.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from pydantic import Field
from rich.console import Console

from newshelf.config import LogSettings
from newshelf.errors import NewshelfError, ServerError, SettingsError, Unavailable
from newshelf.files import StrictModel, read_model, write_private
from newshelf.gateway.fallback import write_popular
from newshelf.gateway.main import check_plan
from newshelf.pipeline.serve import first_key, seed_products, served_archives
from newshelf.pipeline.stages import archive_paths
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.rollout.versions import MODEL, PromotedFile
from newshelf.server.ports import listen
from newshelf.server.process import interruptible, is_running, last_lines
from newshelf.server.program import gateway_services, read_gateway_plan
from newshelf.server.state import GATEWAY, GatewayState, ServerState, read_state
from newshelf.server.torchserve import TorchServePlan, start_torchserve
from newshelf.serving.index import read_columns
from newshelf.store.store import EventStore

_POLL_S, _REPORT_S = 1.0, 60.0
_STAY, _INTERRUPTED = ("models", "serve"), 130
_KEYS = ("keys.json", "cursor.key", "pseudonym.key")


class HostPlan(StrictModel):
    """Folders of a pod, and what it serves."""

    state: Path
    """Workspace of this pod: TorchServe's working directory, keys, spool, shelf."""
    model_store: Path
    plans: Path
    """Folder of the programs' plans, as the chart writes them."""
    keys: Path | None = None
    """Folder of the gateway's keys; None creates a local key."""
    workspace: Path | None = None
    """Workspace of the training, which says what is served if there is no ``version``."""
    catalog: Path = Path("/data/catalog")
    version: str | None = None
    """Version of both archives; None, without a workspace, takes the only one there is. After a
    promotion, the recommender's is the one that the event store names."""
    properties: dict[str, str] = Field({"metrics_address": "http://0.0.0.0:8082"})
    """Override config.properties. The Prometheus page needs no token; all else is on loopback."""
    logs: LogSettings = LogSettings()
    store_url: str = ""
    """Event store: for ``seed``, and for the version that was promoted."""

    @property
    def own(self) -> Workspace:
        """The pod's workspace."""
        return Workspace(self.state, self.catalog, is_sample=False, model_store=self.model_store)


def find_archives(plan: HostPlan, console: Console) -> Mapping[str, Path] | None:
    """Return the archive of each model; None if they are not there yet."""
    if plan.version is not None:
        versions = {"encoder": plan.version, MODEL: _promoted(plan) or plan.version}
        found = {name: plan.model_store / f"{name}-{one}.mar" for name, one in versions.items()}
        return found if all(path.is_file() for path in found.values()) else None
    if plan.workspace is not None:
        trained = replace(plan.own, root=plan.workspace)
        return served_archives(trained, console) if archive_paths(trained.archive) else None
    versions = sorted(
        path.stem.partition("-")[2] for path in plan.model_store.glob(f"{MODEL}-*.mar")
    )
    if len(versions) > 1:
        raise SettingsError(
            f"{plan.model_store} has the versions {', '.join(versions)}; name one as `version`"
        )
    if not versions:
        return None
    return find_archives(plan.model_copy(update={"version": versions[0]}), console)


def _promoted(plan: HostPlan) -> str | None:
    """Return the version that rollouts have put in place, or None before the first promotion."""
    if not plan.store_url:
        return None
    try:
        with EventStore.connect(plan.store_url) as store:
            return store.rollouts.traffic().version or None
    except Unavailable:
        # Away, or without tables yet; the controller puts the model server right later.
        last = PromotedFile(plan.own.promoted).read()
        return last.version if last else None


def prepare(plan: HostPlan, console: Console) -> Mapping[str, Path]:
    """Wait for the archives, write the files that the programs read, and return the archives."""
    reported_s = -_REPORT_S
    while (found := find_archives(plan, console)) is None:
        if time.monotonic() - reported_s >= _REPORT_S:
            reported_s = time.monotonic()
            wanted = f"version {_promoted(plan) or plan.version}" if plan.version else "a version"
            console.print(f"waiting for {wanted} in {plan.model_store} …", markup=False)
        time.sleep(_POLL_S)
    own = plan.own
    write_popular(_columns(found[MODEL]), own.server / "popular.json")
    places = {"gateway": own.gateway_plan, "controller": own.controller, "shelf": own.shelf_plan}
    for name, place in places.items():
        source = plan.plans / f"{name}.json"
        if source.is_file():
            write_private(place, source.read_text(encoding="utf-8"))
        else:
            place.unlink(missing_ok=True)
    for name in _KEYS:
        if plan.keys is not None and (plan.keys / name).is_file():
            # A copy, since the gateway refuses a file of keys that others can read.
            write_private(own.gateway / name, (plan.keys / name).read_text(encoding="utf-8"))
    first_key(own)
    return found


def _columns(archive: Path) -> dict[str, list[object]]:
    """Return the columns of the index in an archive."""
    try:
        with ZipFile(archive) as packed, tempfile.TemporaryDirectory() as folder:
            names = [name for name in packed.namelist() if name.startswith("index/")]
            packed.extractall(folder, names)
            return read_columns(Path(folder) / "index")
    except (OSError, BadZipFile) as error:
        raise ServerError(f"{archive} cannot be unpacked: {error}") from error


def start_models(plan: HostPlan, models: Mapping[str, Path]) -> ServerState:
    """Start TorchServe."""
    own = plan.own
    return start_torchserve(
        TorchServePlan(
            root=ROOT,
            directory=own.server,
            model_store=plan.model_store,
            models=models,
            catalog=str(plan.catalog),
            properties=plan.properties,
            logs=plan.logs,
            shelf=own.shelf if own.shelf_plan.is_file() else None,
        )
    )


def stay(state: ServerState) -> None:
    """Wait until interrupted, then stop; ``ServerError`` if a process ends by itself."""
    try:
        while True:
            time.sleep(_POLL_S)
            for name, process in state.processes.items():
                if not is_running(process):
                    log = state.services[name].log or state.log
                    raise ServerError(f"{name} ended\n" + last_lines(state.model_log, log))
    finally:
        state.end()


def models(plan: HostPlan, console: Console) -> None:
    """Run TorchServe until SIGTERM."""
    found = find_archives(plan, console)
    if found is None:
        raise ServerError(f"the archives are gone from {plan.model_store}")
    stay(start_models(plan, found))


def serve(plan: HostPlan, console: Console) -> None:
    """Run TorchServe and the gateway until SIGTERM."""
    found = prepare(plan, console)
    state = start_models(plan, found)
    path, log = plan.own.gateway_plan, state.directory / "gateway.log"
    gateway = read_gateway_plan(path)
    try:
        check_plan(gateway)
        state = replace(state, gateway=GatewayState(gateway.url))
        with listen(gateway.settings.host, gateway.settings.port, GATEWAY) as listener:
            for service in gateway_services(gateway, path, listener, log=log, folder=state.temp):
                state = state.start(service, kept=plan.logs.kept)
    except BaseException:
        state.end()
        raise
    stay(state)


def seed(plan: HostPlan, console: Console) -> None:
    """Store the catalogue's products that the event store does not know yet."""
    from newshelf.catalog.catalog import read_catalog  # noqa: PLC0415 - imports pandas

    # A store that does not answer fails the job, which is tried again.
    EventStore.open(plan.store_url).close()
    seed_products(read_catalog(plan.catalog), plan.store_url, console)


COMMANDS: Mapping[str, Callable[[HostPlan, Console], object]] = {
    "prepare": prepare,
    "models": models,
    "serve": serve,
    "seed": seed,
}


def main(arguments: list[str]) -> int:
    """Run a command, and return the exit code."""
    if len(arguments) != 2 or arguments[0] not in COMMANDS:  # noqa: PLR2004
        print(f"usage: python host.py {'|'.join(COMMANDS)} HOST.json", file=sys.stderr)
        return 2
    command, path = arguments
    try:
        plan = read_model(Path(path), HostPlan, "plan of a host")
        with interruptible():
            COMMANDS[command](plan, Console(stderr=True))
    except KeyboardInterrupt:
        if command not in _STAY:
            return _INTERRUPTED
        # What was interrupted after its start and before `stay`.
        if (state := read_state(plan.own.server)) is not None:
            state.end()
    except NewshelfError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
