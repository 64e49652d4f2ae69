"""A shop whose new models are rolled out: a TorchServe, gateway and controller of its own."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from typer.testing import CliRunner

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.cli.app import app
from newshelf.cli.pipeline import make_jobs
from newshelf.config import Settings
from newshelf.errors import Unavailable
from newshelf.pipeline.serve import serve
from newshelf.pipeline.stages import archive_paths, bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import Workspace, open_workspace
from newshelf.rollout.plan import RolloutState
from newshelf.rollout.versions import PromotedFile
from newshelf.server.ports import free_port, free_ports
from newshelf.server.state import ServerState
from newshelf.store.store import EventStore
from tests.e2e.remade import FAILS, SLOW, remake, reversed_ranking
from tests.e2e.shoppers import Shoppers

__all__ = ["Shop", "check_record", "open_shop", "pack_versions", "plan_of"]

_PATIENCE_S = 240.0


def quick(settings: Settings, store_url: str = "") -> Settings:
    """Looks each second, and a gateway whose patience a busy machine does not try."""
    archive = settings.archive
    recommender = archive.recommender.model_copy(
        update={"batch_size": 8, "max_batch_delay_ms": 1, "threads": 1}
    )
    return settings.model_copy(
        update={
            "archive": archive.model_copy(update={"recommender": recommender}),
            "gateway": settings.gateway.model_copy(
                update={
                    "timeout_ms": 8000, "max_timeout_ms": 8000, "processes": 2,
                    "log_requests": False,
                }
            ),
            "rollout": settings.rollout.model_copy(
                update={"tick_s": 1.0, "look_s": 0.0, "lease_s": 5.0}
            ),
            "store": settings.store.model_copy(update={"url": store_url}),
        }
    )  # fmt: skip


def plan_of(control: str, challenger: str, **changes: object) -> dict[str, object]:
    """A plan whose steps take seconds."""
    return {
        "control": control,
        "challenger": challenger,
        "ramp": [
            {"percent": 25, "min_seconds": 2, "max_seconds": 120, "min_units": 30},
            {"percent": 50, "min_seconds": 2, "max_seconds": 120, "min_units": 60},
        ],
        "success": [{"metric": "ctr", "minimum_effect": 0.3}],
        "guardrails": [
            {"metric": "error_rate", "most": 0.2},
            {"metric": "p99_ms", "most": 7000},
        ],
        **changes,
    }


@dataclass
class Shop:
    """What runs, and what people do with it."""

    workspace: Workspace
    catalog: Catalog
    state: ServerState
    store: EventStore
    own: str
    """The version that was trained."""
    folder: Path

    @property
    def key(self) -> str:
        return (self.workspace.gateway / "local.key").read_text().strip()

    def shoppers(self, name: str, **more: object) -> Shoppers:
        assert self.state.gateway is not None
        return Shoppers(self.state.gateway.url, self.key, self.catalog, name, **more)  # type: ignore[arg-type]

    def run(self, *words: str, code: int = 0) -> str:
        """``./run rollout WORDS`` for this workspace."""
        places = ["--catalog", str(self.workspace.catalog), "--workspace", str(self.workspace.root)]
        done = CliRunner().invoke(app, ["rollout", *words, *places], env={"COLUMNS": "160"})
        assert done.exit_code == code, done.output
        return done.output

    def start(self, name: str, plan: dict[str, object]) -> None:
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(plan))
        self.run("start", str(path))

    def rollout(self, name: str) -> RolloutState:
        try:
            row = self.store.rollouts.get(name)
        except Unavailable:
            # A test cut all connections of the database, and so this one's too.
            row = self.store.rollouts.get(name)
        return RolloutState.model_validate_json(row.state)

    def wait_for(self, name: str, *phases: str, step: int = 0) -> RolloutState:
        """Until one of the phases, at the step or later."""
        end_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end_s:
            state = self.rollout(name)
            if state.phase in phases and state.step >= step:
                return state
            time.sleep(0.2)
        log = (self.state.directory / "controller.log").read_text()[-3000:]
        raise AssertionError(
            f"{name} is {state.phase}: {state.reason}\n{self.run('status', name)}\n{log}"
        )

    def told(self, name: str) -> list[str]:
        """Phases and steps of the journal, in order."""
        states = [
            RolloutState.model_validate_json(one.state) for one in self.store.rollouts.journal(name)
        ]
        return [f"ramp {one.step}" if one.phase == "ramp" else one.phase for one in states]


def check_record(store: EventStore, shoppers: Shoppers, name: str) -> None:
    """Every answer and acknowledged event is there once, and nobody changed sides."""
    kept = Counter(one.request_id for one in store.exposures())
    assert set(shoppers.answered) <= set(kept)
    assert set(kept.values()) == {1}
    sides: dict[str, set[str]] = {}
    for answer in store.exposures(name):
        assert shoppers.answered.get(answer.request_id, answer.unit) == answer.unit
        sides.setdefault(answer.unit, set()).add(answer.variant)
    assert not [unit for unit, seen in sides.items() if len(seen - {"default"}) > 1]
    events = Counter(one.event_id for one in store.feedback())
    assert shoppers.acknowledged
    assert shoppers.acknowledged <= set(events)
    assert set(events.values()) == {1}


def pack_versions(trained: Workspace, settings: Settings, folder: Path) -> Workspace:
    """A workspace with the same trained model, and a model store with what may be rolled out.

    Next to the trained version there are ``twin``, its equal, ``old`` and ``worse``, which rank the
    wrong way round, ``slow``, and ``fails``, which do so whenever it is shoppers that ask.

    Args:
        trained: whose export is taken; it is left as it is.
        settings: of the training.
        folder: for everything that is written.
    """
    workspace = _copied(trained, folder, folder / "store", "archive")
    console = Console(stderr=True)
    stages = plan_stages(workspace, quick(settings), make_jobs(console))
    bring_up_to_date(stages.up_to("archive"), console)
    archive = _recommender(workspace)
    remake(archive, "twin")
    for version, method in (("slow", SLOW), ("fails", FAILS)):
        remake(archive, version, method=method)
    for version in ("old", "worse"):
        remake(archive, version, index=reversed_ranking)
    return workspace


@contextmanager
def open_shop(
    packed: Workspace,
    settings: Settings,
    folder: Path,
    *,
    served: str = "old",
    store_url: str = "",
    small: bool = False,
) -> Iterator[Shop]:
    """Serve a version of the model store; the trained one waits there.

    Args:
        packed: from ``pack_versions``; it is left as it is.
        settings: of the training.
        folder: for everything that is written.
        served: the version; as if an earlier rollout had promoted it.
        store_url: of the event store; SQLite in the workspace by default.
        small: one gateway process, and no shelf.
    """
    workspace = _copied(packed, folder, packed.model_store)
    settings = quick(settings, store_url)
    if small:
        gateway = settings.gateway.model_copy(update={"processes": 1})
        shelf = settings.shelf.model_copy(update={"enabled": False})
        settings = settings.model_copy(update={"gateway": gateway, "shelf": shelf})
    own = _recommender(workspace).stem.removeprefix("recommender-")
    PromotedFile(workspace.promoted).promote(served, "an earlier rollout", own)
    console = Console(stderr=True)
    running = serve(
        workspace, settings, make_jobs(console), console,
        ports=free_ports(), gateway_port=free_port(),
    )  # fmt: skip
    try:
        with EventStore.open(workspace.store_url(settings)) as store:
            yield Shop(workspace, read_catalog(packed.catalog), running.state, store, own, folder)
    finally:
        running.state.end()


def link_or_copy(source: str, target: str) -> None:
    """Weights, which nothing changes in place, are linked: they are most of a workspace."""
    if Path(source).suffix in {".mar", ".onnx", ".pt", ".pt2", ".safetensors"}:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _copied(source: Workspace, folder: Path, model_store: Path, *leave: str) -> Workspace:
    root = folder / "workspace"
    ignored = shutil.ignore_patterns("server", ".lock", "gateway", "rollout", *leave)
    shutil.copytree(source.root, root, ignore=ignored, copy_function=link_or_copy)
    return open_workspace(source.catalog, override=root, model_store=model_store)


def _recommender(workspace: Workspace) -> Path:
    (path,) = (
        one for one in archive_paths(workspace.archive) if one.stem.startswith("recommender-")
    )
    return path
