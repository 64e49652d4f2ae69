"""The program ``python -m export.search PLAN``, which ``./run serve`` starts after a first start.

It finds the fastest precision of the encoder while float32 is served, and lets the server switch.
"""

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from rich.console import Console

from newshelf.cli.pipeline import make_jobs
from newshelf.errors import NewshelfError, RolloutError, ServerError
from newshelf.pipeline.serve import SearchPlan, has_shelf
from newshelf.pipeline.stages import Jobs, archive_paths, bring_up_to_date, plan_stages
from newshelf.rollout.versions import FIRST, MODEL, TorchServeVersions
from newshelf.server.client import Client
from newshelf.server.process import give_way
from newshelf.server.program import run_program
from newshelf.server.state import read_state
from newshelf.server.torchserve import archives, keep_loading
from newshelf.store.store import EventStore

_ENCODER = "encoder"
_WARM_UP_REQUESTS = 20
_PAUSE_S = 1.0


def search(plan: SearchPlan, jobs: Jobs, console: Console) -> Mapping[str, Path]:
    """Find the fastest precision, and return the archive of each model with it."""
    stages = plan_stages(plan.workspace, plan.settings, jobs)
    with plan.workspace.locked(console):
        bring_up_to_date([stages.precision, stages.export, stages.archive], console)
        return archives(archive_paths(plan.workspace.archive))


class Switch:
    """The switch of a running server from the first archives to those with the precision."""

    def __init__(self, plan: SearchPlan, made: Mapping[str, Path]) -> None:
        self._plan = plan
        self._archives = made
        self._directory = plan.workspace.server
        self.new = made[MODEL].stem.removeprefix(f"{MODEL}-")
        self.old = self.new + FIRST
        question = plan.questions[MODEL]
        self._last_change: int | None = None
        self._versions = TorchServeVersions(self._directory, plan.workspace.model_store, question)

    def run(self) -> None:
        """Load the new version, check it, and make it the default; the old archives stay.

        If that fails, the server stays as it is. Raises ``RolloutError`` if rollouts decide what
        is served, and ``ServerError`` if the new version does not answer.
        """
        self._refuse_rollouts()
        until_s = time.monotonic() + self._plan.settings.rollout.load_s
        try:
            while obstacle := self._obstacle():
                if time.monotonic() > until_s:
                    raise ServerError(f"{self.new} could not be made ready: {obstacle}")
                time.sleep(_PAUSE_S)
            self._refuse_rollouts()
            self._set_default(self.new)
        except NewshelfError:
            with suppress(NewshelfError):
                self._set_default(self.old)
                self.unload(self.new)
            raise

    def unload(self, version: str) -> None:
        """Unload a version of both models that is not the default."""
        self._versions.unload(version)
        with self._client() as client:
            if version in _loaded(client):
                timeout_s = self._plan.settings.stall_s
                client.unregister(_ENCODER, version=version, timeout_s=timeout_s)

    def _obstacle(self) -> str | None:
        """Load the new version, again if TorchServe was restarted; return why it is not ready."""
        try:
            self._versions.load(self.new)
            with self._client() as client:
                if self.new not in _loaded(client):
                    workers = len(client.describe(_ENCODER)[0]["workers"])
                    archive, timeout_s = self._archives[_ENCODER].name, self._plan.settings.stall_s
                    client.register(_ENCODER, archive, max(1, workers), timeout_s=timeout_s)
                wrong = self._wrong_encoder(client)
            wrong = wrong or self._versions.obstacle(self.new, requests=_WARM_UP_REQUESTS)
            return wrong or self._unpublished()
        except (ServerError, httpx.TransportError) as error:
            return str(error)

    def _wrong_encoder(self, client: Client) -> str | None:
        for _ in range(_WARM_UP_REQUESTS):
            question = self._plan.questions[_ENCODER]
            response = client.predict(_ENCODER, json=question, version=self.new)
            if response.status_code != httpx.codes.OK:
                return f"the encoder answered {response.status_code}: {response.text[:200]}"
            if response.json().get("model_version") != self.new:
                return "the encoder answered with another version"
        return None

    def _unpublished(self) -> str | None:
        """Return why workers of the new version would not know all live products."""
        if not has_shelf(self._plan.settings):
            return None
        with EventStore.open(self._plan.workspace.store_url(self._plan.settings)) as store:
            if self._last_change is None:
                # Later changes are published while this one is waited for.
                self._last_change = store.items.last_seq()
            hosts = store.items.hosts()
        published = max((host.seq for host in hosts if host.version == self.new), default=-1)
        is_behind = published < self._last_change
        return f"live products of {self.new} are not published yet" if is_behind else None

    def _set_default(self, version: str) -> None:
        self._versions.set_default(version)
        with self._client() as client:
            client.set_default(_ENCODER, version)
        properties = self._directory / "config.properties"
        keep_loading(properties, _ENCODER, f"{_ENCODER}-{version}.mar")

    def _refuse_rollouts(self) -> None:
        """A rollout compares what is served with a challenger, so neither may change."""
        settings = self._plan.settings
        if settings.gateway.enabled:
            with EventStore.open(self._plan.workspace.store_url(settings)) as store:
                if store.rollouts.all():
                    raise RolloutError(
                        f"rollouts decide what is served here; {self.new} is in the model store "
                        "for ./run rollout start"
                    )

    def _client(self) -> Client:
        state = read_state(self._directory)
        if state is None:
            raise ServerError("the server was stopped")
        return Client(state, timeout_s=self._plan.settings.stall_s)


def _loaded(client: Client) -> set[str]:
    return {str(one["modelVersion"]) for one in client.describe(_ENCODER, "all")}


def _work(plan: SearchPlan) -> None:
    # Requests come first.
    give_way(10)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        switch = Switch(plan, search(plan, make_jobs(console), console))
        switch.run()
        console.print(f"{switch.new} is served instead of {switch.old}", markup=False)
        # Until no answer of the old workers can be in progress.
        time.sleep(plan.settings.gateway.max_timeout_ms / 1000)
        switch.unload(switch.old)
    except NewshelfError:
        raise
    except Exception as error:
        logging.exception("the search failed")
        raise ServerError(repr(error)) from error


if __name__ == "__main__":
    sys.exit(run_program(SearchPlan, _work))
