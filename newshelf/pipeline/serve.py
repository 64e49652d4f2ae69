"""``./run serve``: brings the stages up to date, then starts TorchServe and what belongs to it.

How each process starts is in ``newshelf.server``; this module decides what they serve, and picks
requests that check and show that a model answers.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from newshelf.catalog.schema import ENCODABLE
from newshelf.config import Settings
from newshelf.errors import ServerError, SettingsError, SetupError, Unavailable
from newshelf.files import write_private
from newshelf.gateway.fallback import write_popular
from newshelf.gateway.keys import SCOPES, KeyFile
from newshelf.pipeline.stages import Jobs, archive_paths, bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import ROOT, Workspace
from newshelf.rollout.versions import PromotedFile
from newshelf.server.client import Client
from newshelf.server.ports import LOOPBACK, Ports, listen
from newshelf.server.process import ProgramPlan, program, read_log, rotate_log, write_plan
from newshelf.server.program import (
    ControllerPlan,
    GatewayPlan,
    ShelfPlan,
    gateway_services,
    wait_for_gateway,
)
from newshelf.server.state import (
    CONTROLLER,
    GATEWAY,
    SEARCH,
    SHELF,
    SUPERVISOR,
    GatewayState,
    ServerState,
    running_state,
)
from newshelf.server.supervisor import SupervisorPlan
from newshelf.server.torchserve import TorchServePlan, archives, start_torchserve, wait_until_ready
from newshelf.shelf.words import WORDS_FOLDER
from newshelf.store.items import ItemWrite

if TYPE_CHECKING:
    from newshelf.catalog.catalog import Catalog


LOCAL_KEY = "local"
_LOCAL_RATE_PER_S = 1_000.0
_MODEL = "recommender"
_RULES = ROOT / "configs" / "rules.toml"
_FIRST_K, _CHECK_K = 10, 5
_POLL_S = 0.5


class SearchPlan(ProgramPlan):
    """Plan of ``export.search``; every version of a model must answer its question."""

    workspace: Workspace
    settings: Settings
    questions: dict[str, dict[str, object]]


@dataclass(frozen=True)
class Served:
    """A running server and its first recommendation."""

    state: ServerState
    demo: "Demo"
    answer: dict[str, Any]


def serve(
    workspace: Workspace,
    settings: Settings,
    jobs: Jobs,
    console: Console,
    *,
    ports: Ports | None = None,
    gateway_port: int | None = None,
    search: bool = False,
) -> Served:
    """Start TorchServe on up-to-date stages, then the gateway, its controller and the shelf.

    Float32 is served until a precision of the encoder is known; ``search`` finds one meanwhile.
    """
    _refuse_second(workspace)
    with workspace.locked(console):
        _refuse_second(workspace)
        stages = plan_stages(workspace, settings, jobs)
        built = bring_up_to_date(stages.up_to("graphs"), console)
        last = stages.to_serve(settings.archive.precision)
        built += bring_up_to_date(last, console)
        state = start_torchserve(
            TorchServePlan(
                root=ROOT,
                directory=workspace.server,
                model_store=workspace.model_store,
                models=served_archives(workspace, console, last[-1].directory),
                catalog=str(workspace.catalog),
                ports=ports,
                logs=settings.logs,
                shelf=workspace.shelf if has_shelf(settings) else None,
            )
        )
        try:
            # Imports pandas, and takes its time while TorchServe starts.
            catalog, demo = _read_demo(workspace, console, summary="train" not in built)
            answer = _first_answer(state, demo, console, settings.stall_s)
            with ExitStack() as stack:
                if settings.gateway.enabled:
                    gateway = plan_gateway(
                        state, workspace, settings, port=gateway_port, known_shopper=demo.history
                    )
                    state = _start_gateway(state, gateway, settings, stack)
                    # The gateway waits for it, and for the versions that it loads.
                    plan = plan_controller(state, workspace, settings, demo)
                    state = _start(
                        state, CONTROLLER, "newshelf.rollout", workspace.controller, plan
                    )
                    log = state.directory / "gateway.log"
                    wait_for_gateway(state, log, timeout_s=settings.stall_s)
                    console.print(f"[green]✓[/] the gateway answers at {gateway.url}")
                    if gateway.settings.shop.enabled == "always":
                        console.print(f"[green]✓[/] the shop window is at {gateway.url}/shop")
                    if gateway.settings.console.enabled == "always":
                        console.print(f"[green]✓[/] the console is at {gateway.url}/console")
                if has_shelf(settings):
                    seed_products(catalog, workspace.store_url(settings), console)
                    shelf = plan_shelf(state, workspace, settings)
                    state = _start(state, SHELF, "newshelf.shelf", workspace.shelf_plan, shelf)
                path = state.directory / f"{SEARCH}.json"
                path.with_suffix(".log").unlink(missing_ok=True)
                if search and last == [stages.first] and settings.archive.precision == "auto":
                    questions = demo.requests()
                    after = SearchPlan(workspace=workspace, settings=settings, questions=questions)
                    state = _start(state, SEARCH, "export.search", path, after)
                path = state.directory / "supervisor.json"
                supervisor = SupervisorPlan(logs=settings.logs, directory=state.directory)
                state = _start(state, SUPERVISOR, "newshelf.server.supervisor", path, supervisor)
            return Served(state, demo, answer)
        except BaseException:
            state.end()
            raise


def _start_gateway(
    state: ServerState, plan: GatewayPlan, settings: Settings, stack: ExitStack
) -> ServerState:
    """Start the gateway's processes; ``stack`` closes their socket."""
    from newshelf.gateway.main import check_plan  # noqa: PLC0415 - imports the framework

    check_plan(plan)
    path, log = state.directory / "gateway.json", state.directory / "gateway.log"
    write_plan(path, plan)
    rotate_log(log, settings.logs.kept)
    listener = stack.enter_context(listen(plan.settings.host, plan.settings.port, GATEWAY))
    state = replace(state, gateway=GatewayState(plan.url))
    for service in gateway_services(plan, path, listener, log=log, folder=state.temp):
        state = state.start(service)
    return state


def _start(
    state: ServerState, name: str, module: str, path: Path, plan: ProgramPlan
) -> ServerState:
    """Write a program's plan and start it."""
    write_plan(path, plan)
    of_all = {number for one in state.services.values() for number in one.sockets}
    service = program(
        name,
        module,
        path,
        log=state.directory / f"{name}.log",
        heartbeat=state.temp / name,
        # Looks at large rollouts, and folds of large deltas, take long.
        silence_s=60.0 if name == SUPERVISOR else 300.0,
        # The supervisor passes them to the gateway's next processes.
        sockets=of_all if name == SUPERVISOR else (),
    )
    if name == SEARCH:
        # The supervisor would start it again when it has ended.
        return replace(state, processes={**state.processes, name: service.start()})
    return state.start(service, kept=plan.logs.kept)


def stay(state: ServerState, console: Console) -> None:
    """Print what the search says until an exception: an interruption, or a server that ended."""
    shown = 0
    while running_state(state.directory) is not None:
        said = read_log(state.directory / f"{SEARCH}.log").rpartition("\n")[0].splitlines()
        for line in said[shown:]:
            console.print(line, markup=False, highlight=False)
        shown = len(said)
        time.sleep(_POLL_S)
    raise ServerError(f"the server was stopped; its logs are in {state.directory}")


def served_archives(
    workspace: Workspace, console: Console, made: Path | None = None
) -> dict[str, Path]:
    """Return the archive of each model: the promoted one, or else that in a list, the last made."""
    folders = [one for one in (workspace.archive, workspace.first) if archive_paths(one)]
    made = made or max(folders, key=lambda one: one.stat().st_mtime, default=workspace.archive)
    own = archives(archive_paths(made))
    promoted = PromotedFile(workspace.promoted).read()
    if promoted is None:
        return own
    path = workspace.model_store / f"{_MODEL}-{promoted.version}.mar"
    if path == own[_MODEL]:
        return own
    if not path.is_file():
        raise ServerError(
            f"rollout {promoted.rollout} promoted version {promoted.version}, but {path} is gone: "
            f"put it back, or remove {workspace.promoted} to serve {own[_MODEL].name}"
        )
    console.print(
        f"serving {path.name}, which rollout {promoted.rollout} decided on; {own[_MODEL].name} of "
        "this workspace is for ./run rollout start",
        markup=False,
    )
    return own | {_MODEL: path}


def served_recommender(workspace: Workspace, console: Console) -> Path:
    """Return the recommender's archive of ``served_archives``, or raise ``SetupError``."""
    archive = served_archives(workspace, console).get(_MODEL)
    if archive is None:
        raise SetupError(f"{workspace.root} has no archive yet: ./run archive makes one")
    return archive


def plan_gateway(
    state: ServerState,
    workspace: Workspace,
    settings: Settings,
    *,
    port: int | None = None,
    known_shopper: Sequence[str] = (),
) -> GatewayPlan:
    """Return the plan of a gateway in front of ``state``; create its files if they are missing."""
    from newshelf.serving.index import read_columns  # noqa: PLC0415 - imports scipy

    gateway = settings.gateway
    shop, console = gateway.shop, gateway.console
    if workspace.is_sample and shop.enabled == "sample":
        shop = shop.model_copy(update={"enabled": "always", "views": True})
    if workspace.is_sample and console.enabled == "sample" and gateway.host in LOOPBACK:
        console = console.model_copy(update={"enabled": "always"})
    chosen = {"port": port or gateway.port, "shop": shop, "console": console}
    gateway = gateway.model_copy(update=chosen)
    popular = state.directory / "popular.json"
    write_popular(read_columns(workspace.graphs / "index"), popular)
    first_key(workspace)
    return GatewayPlan(
        settings=gateway,
        logs=settings.logs,
        limits=settings.archive.limits,
        inference_url=state.inference_url,
        management_url=state.management_url,
        torchserve_keys=state.key_file,
        api_keys=workspace.api_keys,
        placements=Path(gateway.placements or ROOT / "configs" / "placements.toml").absolute(),
        words=workspace.shelf / WORDS_FOLDER,
        drift=workspace.drift / "report.json",
        rules=_RULES,
        retrain=workspace.retrain,
        controller="",
        popular=popular,
        store_url=workspace.store_url(settings),
        pseudonym_key=workspace.pseudonym_key(settings),
        known_shopper=tuple(known_shopper),
        spool=Path(settings.store.spool or workspace.gateway / "spool.db").absolute(),
        spool_max_bytes=settings.store.spool_max_bytes,
    )


def plan_controller(
    state: ServerState, workspace: Workspace, settings: Settings, demo: "Demo"
) -> ControllerPlan:
    """Return a controller's plan; ``demo``'s history tries a version before shoppers do."""
    return ControllerPlan(
        settings=settings.rollout,
        logs=settings.logs,
        store_url=workspace.store_url(settings),
        torchserve=state.directory,
        model_store=workspace.model_store,
        promoted=workspace.promoted,
        question={"history": demo.history, "k": _CHECK_K},
        longest_request_s=settings.gateway.max_timeout_ms / 1000,
        webhooks=settings.webhooks,
    )


def has_shelf(settings: Settings) -> bool:
    """Return whether products can be changed while they are served."""
    return settings.gateway.enabled and settings.shelf.enabled


def plan_shelf(state: ServerState, workspace: Workspace, settings: Settings) -> ShelfPlan:
    """Return the plan of the process that publishes changed products to ``state``'s workers."""
    return ShelfPlan(
        settings=settings.shelf,
        event_weights=settings.training.event_weights,
        robots=settings.robots,
        logs=settings.logs,
        store_url=workspace.store_url(settings),
        torchserve=state.directory,
        model_store=workspace.model_store,
        folder=workspace.shelf,
        rules=_RULES,
        max_picture_bytes=settings.archive.limits.max_picture_bytes,
    )


def seed_products(catalog: "Catalog", store_url: str, console: Console) -> None:
    """Store the catalogue's products that the store does not know yet."""
    from newshelf.pipeline.merged_catalog import catalog_items  # noqa: PLC0415 - imports pandas
    from newshelf.store.store import EventStore  # noqa: PLC0415

    try:
        with EventStore.open(store_url) as store:
            known = {*store.items.ids()}
            found = catalog_items(catalog, skip=known)
            added = store.items.seed(one for one in found if isinstance(one, ItemWrite))
    except (SettingsError, Unavailable) as error:
        # The gateway answers without the store, too.
        console.print(f"the products were not stored: {error.message}", markup=False)
        return
    if added:
        console.print(f"[green]✓[/] {added:,} products of the catalogue can be changed live")


def first_key(workspace: Workspace) -> Path:
    """Return the private file of the local key; create the key if there is none at all."""
    path = workspace.gateway / f"{LOCAL_KEY}.key"
    keys = KeyFile(workspace.api_keys)
    if not keys.read():
        now = datetime.now(UTC)
        secret = keys.add(
            LOCAL_KEY, now=now, expires=None, rate_per_s=_LOCAL_RATE_PER_S, scopes=SCOPES
        )
        write_private(path, secret + "\n")
    return path


def _refuse_second(workspace: Workspace) -> None:
    running = running_state(workspace.server)
    if running is not None:
        raise ServerError(
            f"already serving {running.catalog} at {running.inference_url}; ./run status shows "
            "more, ./run stop stops it"
        )


def _read_demo(
    workspace: Workspace, console: Console, *, summary: bool
) -> tuple["Catalog", "Demo"]:
    from newshelf.catalog.catalog import read_catalog  # noqa: PLC0415 - imports pandas

    catalog = read_catalog(workspace.catalog)
    if summary:
        console.print(catalog.report.summary(console.width), markup=False)
    return catalog, pick_demo(catalog)


def _first_answer(
    state: ServerState, demo: "Demo", console: Console, stall_s: float
) -> dict[str, Any]:
    def report(model: str, seconds: float) -> None:
        console.print(f"[green]✓[/] {model} answers after {seconds:.1f} s")

    with console.status("TorchServe starts and its workers load their models …"):
        wait_until_ready(state, demo.requests(), timeout_s=stall_s, on_ready=report)
    with Client(state) as client:
        return client.recommend(history=demo.history, k=_FIRST_K)


_HISTORY = 3


@dataclass(frozen=True)
class Demo:
    """A shopper's history, and what is needed to print an answer to it."""

    history: list[str]
    """Product ids, oldest first."""
    owner: str
    """Owner of the history, such as ``shopper u17``."""
    titles: dict[str, str]
    """Title of each product that has one, by id."""
    picture: Path | None
    """One of the catalogue's pictures."""

    def requests(self) -> dict[str, dict[str, object]]:
        """Return a valid request for each model."""
        return {"encoder": dict(ENCODABLE), "recommender": {"history": self.history, "k": 1}}


def pick_demo(catalog: "Catalog") -> Demo:
    """Pick the history of a shopper or basket; the same one at every start."""
    items = catalog.items
    titled = items[items["title"].notna()]
    pictures = (catalog.image_path(row) for row in range(len(items)))
    picture = next((path for path in pictures if path is not None), None)
    history, owner = _history(catalog)
    return Demo(
        history=history,
        owner=owner,
        titles=dict(zip(titled["id"], titled["title"], strict=True)),
        picture=picture,
    )


def _history(catalog: "Catalog") -> tuple[list[str], str]:
    for table, column, kind in (
        (catalog.events, "user_id", "shopper"),
        (catalog.baskets, "basket_id", "basket"),
    ):
        if table is None or table.empty:
            continue
        pairs = table[[column, "item_id"]].drop_duplicates(keep="last")
        # The latest one with enough items, or else one with the most.
        counts = pairs.groupby(column, sort=False)["item_id"].transform("size")
        enough = pairs[counts >= min(_HISTORY, counts.max())]
        chosen = enough[column].iloc[-1]
        ids = enough.loc[enough[column] == chosen, "item_id"].tail(_HISTORY)
        return [str(value) for value in ids], f"{kind} {chosen}"
    return [str(value) for value in catalog.items["id"].head(_HISTORY)], "the first products"
