"""A small world: the real store, a model server that obeys, shoppers, and a clock."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from newshelf.config import RolloutSettings, WebhookSettings
from newshelf.rollout.assignment import assign
from newshelf.rollout.controller import Controller
from newshelf.rollout.operations import start_rollout
from newshelf.rollout.plan import Plan, RolloutState
from newshelf.rollout.versions import PromotedFile
from newshelf.server.webhooks import Webhooks
from newshelf.store.records import ExposedItem, Exposure, Feedback, ShadowAnswer
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.rollout.controller.fake_versions import FakeVersions

NAME = "better-ranking"
PLAN = {
    "control": "1",
    "challenger": "2",
    "shadow": {
        "min_seconds": 5,
        "max_seconds": 60,
        "min_requests": 20,
        "most_error_share": 0.05,
        "most_p99_ms": 200,
    },
    "ramp": [
        {"percent": 10, "min_seconds": 5, "max_seconds": 600, "min_units": 8},
        {"percent": 50, "min_seconds": 5, "max_seconds": 600, "min_units": 60},
    ],
    "promotion": {"min_seconds": 0, "max_seconds": 60},
    "success": [{"metric": "ctr", "minimum_effect": 0.3}],
    "guardrails": [
        {"metric": "error_rate", "most": 0.05},
        {"metric": "p99_ms", "most": 300},
    ],
}


@dataclass
class World:
    """Everything that outlives a controller."""

    folder: Path
    store: EventStore
    plan: Plan
    versions: FakeVersions = field(default_factory=FakeVersions)
    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)
    random: Random = field(default_factory=lambda: Random(7))
    answers: int = 0
    webhooks: Webhooks = field(default_factory=lambda: Webhooks(WebhookSettings()))

    @property
    def promoted(self) -> PromotedFile:
        return PromotedFile(self.folder / "promoted.json")

    @property
    def state(self) -> RolloutState:
        return RolloutState.model_validate_json(self.store.rollouts.get(NAME).state)

    @property
    def phases(self) -> list[str]:
        """All that the journal tells, each phase once in a row."""
        told = [
            RolloutState.model_validate_json(one.state) for one in self.store.rollouts.journal(NAME)
        ]
        names = [f"{one.phase} {one.step}" if one.phase == "ramp" else one.phase for one in told]
        return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]

    def clock(self) -> datetime:
        return self.now

    def start(self) -> None:
        start_rollout(
            self.store, self.versions.default, self.folder, self.plan, NAME, clock=self.clock
        )

    def controller(
        self, holder: str = "first", lease_s: float = 30.0, host: str = "here"
    ) -> Controller:
        settings = RolloutSettings(load_s=60, covariate_days=1, look_s=0)
        # A test does not wait as long as the shortest lease that is allowed.
        settings = settings.model_copy(update={"lease_s": lease_s})
        return Controller(
            self.store,
            self.versions,
            self.promoted,
            settings,
            self.webhooks,
            drain_s=20,
            host=host,
            holder=holder,
            clock=self.clock,
        )

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def shop(self, units: int = 160, **challenger: float) -> None:
        """Shoppers come, and a gateway answers and records them as the store's split says."""
        behaviour = {"ctr": 0.8, "error": 0.0, "latency_ms": 20.0} | challenger
        exposures, clicks, copies = [], [], []
        (split,) = self.store.rollouts.traffic().splits or [None]
        for unit in range(units):
            answer = self._answer(f"unit-{unit}", split, behaviour)
            exposures.append(answer)
            chance = behaviour["ctr"] if answer.model_version == "2" else 0.4
            if answer.items and self.random.random() < chance:
                clicks.append(_click(answer))
            if split is not None and split.shadow:
                copies.append(self._copy(answer, behaviour))
        self.store.write(WriteBatch(exposures=exposures))
        self.store.write(WriteBatch(feedback=clicks))
        self.store.write(WriteBatch(shadow=copies))

    def _answer(self, unit: str, split: object, behaviour: dict[str, float]) -> Exposure:
        self.answers += 1
        at = self.now + timedelta(milliseconds=self.random.randrange(1, 900))
        assigned = None if split is None else assign(split, unit)
        version = self.versions.default() if assigned is None else assigned.version
        fails = version == "2" and self.random.random() < behaviour["error"]
        return Exposure(
            request_id=f"request-{self.answers}",
            unit=unit,
            at=at,
            rollout=None if split is None else split.rollout,
            variant="default" if assigned is None else assigned.variant,
            model_version=version,
            index_version=f"index-{version}",
            fallback=fails,
            latency_ms=behaviour["latency_ms"] if version == "2" else 20.0,
            items=tuple(
                ExposedItem(
                    item_id=f"item-{place}", position=place, score=1 / place, source="model",
                    propensity=0.5,
                )
                for place in range(1, 4)
            ),
        )  # fmt: skip

    def _copy(self, answer: Exposure, behaviour: dict[str, float]) -> ShadowAnswer:
        fails = self.random.random() < behaviour["error"]
        return ShadowAnswer(
            rollout=NAME,
            request_id=answer.request_id,
            at=answer.at,
            latency_ms=behaviour["latency_ms"],
            error=fails,
            overlap=None if fails else 0.7,
            score_drift=None if fails else 0.2,
        )


def _click(answer: Exposure) -> Feedback:
    return Feedback(
        event_id=f"click-{answer.request_id}",
        event_type="click",
        item_id="item-1",
        at=answer.at,
        request_id=answer.request_id,
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_url: str) -> Iterator[World]:
    # The same shoppers see the challenger first in every run.
    monkeypatch.setattr("newshelf.rollout.operations.new_salt", lambda: "salt")
    for version in ("1", "2"):
        (tmp_path / f"recommender-{version}.mar").write_bytes(b"")
    with EventStore.open(store_url) as store:
        yield World(tmp_path, store, Plan.model_validate(PLAN))
