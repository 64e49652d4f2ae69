"""``./run tune``: serves each point with TorchServe, under load, and searches for the best."""

from dataclasses import dataclass

from rich.console import Console

from loadtest.requests import Rendered
from loadtest.slo import Slo
from loadtest.tuning.load import ClosedLoopPlan, ModelName, draw_requests, run_load
from loadtest.tuning.points import Point, SearchSpace
from loadtest.tuning.search import PointMeasurement, SearchResult, judge, search
from loadtest.tuning.server import ExportTools, PointArchives, PointServer
from newshelf.catalog.catalog import read_catalog
from newshelf.config import Settings
from newshelf.errors import ServerError, SettingsError
from newshelf.pipeline.serve import pick_demo
from newshelf.pipeline.workspace import Workspace
from newshelf.server.client import Client

_FOLDER = "tuning"
_DISTINCT = 200
_WARM_UP = 0.5
"""As a share of the measurement; at least a second."""


@dataclass(frozen=True)
class PointLoad:
    """The load on each point."""

    model: ModelName
    clients: int
    seconds: float
    """Length of a full run."""


def tune(
    workspace: Workspace,
    settings: Settings,
    space: SearchSpace,
    load: PointLoad,
    slo: Slo,
    tools: ExportTools,
    console: Console,
) -> SearchResult:
    """Search ``space`` and print each run."""
    queue = getattr(settings.archive, load.model).queue_size
    if load.clients > queue:
        raise SettingsError(
            f"--clients {load.clients} is more than archive.{load.model}.queue_size ({queue}), "
            "beyond which requests get 503: raise the queue size, or use fewer clients"
        )
    catalog = read_catalog(workspace.catalog)
    requests = draw_requests(load.model, catalog, _DISTINCT)
    request = pick_demo(catalog).requests()[load.model]
    server = PointServer(workspace.root / _FOLDER / ".work", workspace.catalog)
    archives = PointArchives(load.model, settings, tools, server.store)
    try:
        runner = _Runner(server, archives, request, requests, load, slo, console)
        found = search(space, runner.measure, load.seconds)
    finally:
        server.remove()
    if not found.best.per_second:
        raise ServerError("no point could be served: " + "; ".join(found.best.missed))
    return found


@dataclass(frozen=True)
class _Runner:
    """Serves a point and puts it under load."""

    server: PointServer
    archives: PointArchives
    request: dict[str, object]
    """Checks that the model answers."""
    requests: list[Rendered]
    load: PointLoad
    slo: Slo
    console: Console

    def measure(self, point: Point, seconds: float) -> PointMeasurement:
        """Run a point, and print its result."""
        with self.console.status(f"{point}, {seconds:g} s …"):
            run = self._measured(point, seconds)
        if run.per_second:
            mark = "[green]✓[/]" if run.meets else "[yellow]·[/]"
            percent = f"p{self.slo.strictest.percent:g}"
            figures = f"{run.per_second:.0f}/s, {percent} {run.latency_ms:.1f} ms"
            self.console.print(f"{mark} {point}: {figures} ({seconds:g} s)")
        else:
            self.console.print(f"[red]✗[/] {point}: ", end="")
            self.console.print("; ".join(run.missed).splitlines()[0], markup=False)
        return run

    def _measured(self, point: Point, seconds: float) -> PointMeasurement:
        """Run a point; one that cannot be served (no memory, no provider) counts as failed."""
        model, workers = self.load.model, point.computing.workers
        try:
            archive = self.archives.make(point)
            with (
                self.server.serving(model, archive, workers, self.request) as state,
                Client(state) as client,
            ):
                plan = ClosedLoopPlan(
                    state.inference_url,
                    self.requests,
                    self.load.clients,
                    client.authorization(),
                    seconds=seconds,
                    warm_up_s=max(1.0, seconds * _WARM_UP),
                )
                sent = run_load(plan)
        except ServerError as error:
            return PointMeasurement(point, seconds, 0.0, float("inf"), (error.message,))
        return judge(point, seconds, sent, self.slo)
