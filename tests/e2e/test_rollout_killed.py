"""Whatever is killed while a rollout splits real shoppers, nothing that was promised is lost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg import sql

from benchmarks.store.postgres import Postgres
from newshelf.cli.pipeline import settings_from
from newshelf.pipeline.workspace import Workspace
from newshelf.server.client import Client
from tests.e2e.rollouts import Shop, check_record, open_shop, plan_of

pytestmark = pytest.mark.xdist_group("rollouts")

DATABASE = "shop"
APART_S = 2.0
"""Between two kills."""
CUT = sql.SQL(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with Postgres(["fsync=off"]) as server:
        yield server


@pytest.fixture
def live(
    packed: Workspace, settings_file: Path, tmp_path: Path, postgres: Postgres
) -> Iterator[Shop]:
    url = postgres.create_database(DATABASE)
    with open_shop(packed, settings_from(settings_file), tmp_path, store_url=url) as opened:
        yield opened


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_whatever_is_killed_during_a_ramp_nothing_acknowledged_is_lost(
    live: Shop, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    def now(name: str) -> int:
        while (ref := live.state.current().processes.get(name)) is None:
            time.sleep(0.1)
        return ref.pid

    def kill_gateway() -> None:
        kill(now("gateway-1"))

    def kill_controller() -> None:
        kill(now("controller"))

    def kill_worker() -> None:
        with Client(live.state) as client:
            (told,) = client.describe("recommender", live.own)
        kill(told["workers"][0]["pid"])

    def cut_the_database() -> None:
        postgres.execute(CUT)

    kills: list[Callable[[], None]] = [
        kill_gateway, kill_controller, kill_worker, cut_the_database,
    ]  # fmt: skip
    # The step outlasts the kills; a killed worker's requests are answered by the fallback.
    ramp = [{"percent": 50, "min_seconds": 24, "max_seconds": 240, "min_units": 100}]
    lenient = [{"metric": "error_rate", "most": 0.9}]
    live.start("chaos", plan_of("old", live.own, ramp=ramp, guardrails=lenient))
    with live.shoppers("chaos", retry=True) as shoppers:
        live.wait_for("chaos", "ramp")
        for each in kills * 2:
            time.sleep(APART_S)
            each()
        assert live.rollout("chaos").phase == "ramp"
        state = live.wait_for("chaos", "promoted", "paused", "rolled_back", "aborted")
    assert state.phase == "promoted", state.reason
    check_record(live.store, shoppers, "chaos")
    requests = len(shoppers.answered) + len(shoppers.failed)
    with capsys.disabled():
        print(
            f"\n{len(kills) * 2} kills: {len(shoppers.failed)} of {requests} requests failed "
            f"({len(shoppers.failed) / requests:.2%}), answered by {shoppers.sources}; "
            f"{len(shoppers.acknowledged)} events acknowledged, none lost"
        )
    # The killed gateway's requests under way, and what came while the database was cut.
    assert len(shoppers.failed) < len(shoppers.answered) / 10
