"""Off-policy estimates from a store, against a simulation whose truth is known."""

import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import orjson
import pytest

from newshelf.cli.rules import open_recommender
from newshelf.rollout.assignment import team_draft
from newshelf.serving.protocol import RawRequest
from newshelf.store.records import ExposedItem, Exposure, Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch
from tests.unit.cli.verbs import Run, verbs_of

AT = datetime.now(UTC) - timedelta(days=1)
K, SHARE, ANSWERS = 4, 0.25, 500
LIKED = {f"i{at:02}" for at in range(0, 30, 3)}
"""Clicked with a probability of 0.8; others with 0.1."""


@pytest.fixture
def url(tmp_path: Path, empty_store: Path, archive: Path) -> str:
    shutil.copyfile(empty_store, tmp_path / "events.db")
    shutil.copyfile(archive, tmp_path / archive.name)
    return f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def run(tmp_path: Path, url: str) -> Run:
    return verbs_of("offpolicy", tmp_path, url)


@pytest.fixture(scope="module")
def rankings(archive: Path) -> dict[str, list[str]]:
    """What the version answers to each history of one product."""
    histories = [f"i{at:02}" for at in range(30)]
    with open_recommender(archive) as recommender:
        answers = recommender.predict(
            [RawRequest.unhurried(orjson.dumps({"history": [one], "k": 20})) for one in histories]
        )
    items = ([item["id"] for item in orjson.loads(one.body)["items"]] for one in answers)
    return dict(zip(histories, items, strict=True))


def answer(at: int, items: Sequence[tuple[str, str, float]], variant: str) -> Exposure:
    return Exposure(
        request_id=f"q{at}",
        unit=f"u{at}",
        at=AT,
        rollout="spring",
        variant=variant,
        model_version="1.1",
        index_version="1",
        latency_ms=1,
        items=tuple(
            ExposedItem(item_id=item, position=place, score=1, source=source, propensity=chance)
            for place, (item, source, chance) in enumerate(items, start=1)
        ),
    )


@pytest.fixture
def recorded(url: str, rankings: dict[str, list[str]]) -> float:
    """Answers drafted from the version and another one; what the version would have earned."""
    random, exposures, events, earned = Random(5), [], [], 0.0
    for at in range(ANSWERS):
        seen = random.choice(list(rankings))
        other = random.sample(sorted(set(rankings) - {seen}), K)
        drafted = team_draft(rankings[seen], other, K, random)
        items = [(one.item_id, f"{one.team}/model", SHARE * one.propensity) for one in drafted]
        exposures.append(answer(at, items, "interleaved"))
        earned += sum(0.8 if item in LIKED else 0.1 for item in rankings[seen][:K])
        before = {"event_type": "click", "item_id": seen, "unit": f"u{at}"}
        events.append(Feedback(event_id=f"b{at}", at=AT - timedelta(hours=1), **before))
        for item, _, _ in items:
            if random.random() < (0.8 if item in LIKED else 0.1):
                clicked = {"event_type": "click", "item_id": item, "request_id": f"q{at}"}
                after = AT + timedelta(minutes=1)
                events.append(Feedback(event_id=f"{at} {item}", at=after, **clicked))
    # Answers of one version, and by the fallback, do not count.
    exposures += [answer(ANSWERS + at, [("i01", "model", 1.0)], "default") for at in range(50)]
    with EventStore.open(url) as store:
        store.write(WriteBatch(exposures=exposures, feedback=events))
    return earned / ANSWERS


def numbers(output: str) -> list[float]:
    """Estimate, and both ends of its interval."""
    found = re.search(r"([\d.]+) │ ([\d.]+) … ([\d.]+)", output)
    assert found, output
    return [float(one) for one in found.groups()]


def test_the_estimate_is_what_the_version_would_have_earned(run: Run, recorded: float) -> None:
    code, output = run("--target", "1.2")
    assert code == 0, output
    value, low, high = numbers(output)
    assert low < recorded < high
    assert low < value < high
    assert f"{ANSWERS} interleaved answers" in output
    assert "as recorded" in output


def test_rules_are_part_of_what_is_estimated(run: Run, recorded: float, tmp_path: Path) -> None:
    liked = ", ".join(f'"{item}"' for item in sorted(LIKED))
    rule = '[[rule]]\nname = "a"\naction = "bury"\nweight = 100\n'
    when = f'when = {{column = "id", in = [{liked}]}}'
    (tmp_path / "rules.toml").write_text(rule + when)
    code, output = run("--target", "1.2", "--rules", tmp_path / "rules.toml", "--rollout", "spring")
    assert code == 0, output
    assert numbers(output)[2] < recorded


def test_too_little_is_refused(run: Run, url: str) -> None:
    code, output = run("--target", "1.2")
    assert (code, "drawn by chance" in output) == (1, True), output
    few = [answer(at, [("i01", "control/model", 0.5)], "interleaved") for at in range(40)]
    with EventStore.open(url) as store:
        store.write(WriteBatch(exposures=few))
    code, output = run("--target", "1.2")
    assert (code, "fewer than 100" in output) == (1, True), output
    assert run("--target", "9.9")[0] == 1
