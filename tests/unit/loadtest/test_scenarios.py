"""Shapes, Poisson arrivals and plans."""

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import integrate, stats

from loadtest.scenarios import (
    Day,
    LoadPlan,
    Ramp,
    Shape,
    Soak,
    Spike,
    Steady,
    plan_from_json,
    plan_to_json,
    poisson_arrivals,
)
from loadtest.traffic import TrafficSettings
from newshelf.errors import SettingsError

SHAPES: list[Shape] = [
    Steady(), Soak(), Ramp(), Ramp(start=3.0), Spike(), Spike(height=10, begin=0, end=0.1),
    Day(), Day(trough=0, days=3),
]  # fmt: skip


def drawn(shape: Shape, rate: float, seconds: float, seed: int = 3) -> np.ndarray:
    return np.array(list(poisson_arrivals(shape, rate, seconds, np.random.default_rng(seed))))


def test_gaps_of_a_steady_rate_are_exponential() -> None:
    moments = drawn(Steady(), 50, 400)
    gaps = np.diff(moments, prepend=0)
    assert stats.kstest(gaps, stats.expon(scale=1 / 50).cdf).pvalue > 0.01
    # A gap says nothing about the next.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / math.sqrt(len(gaps))


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_numbers_in_each_part_of_the_run_are_those_of_the_rate(shape: Shape) -> None:
    """Each tenth of the run has a Poisson number of arrivals; all of them are a chi-squared."""
    rate, seconds = 40.0, 500.0
    found, edges = np.histogram(drawn(shape, rate, seconds), bins=10, range=(0, seconds))
    expected = np.array([
        integrate.quad(
            lambda at: float(shape.factor(np.array([at]))[0]), low, high, limit=200, points=None
        )[0] * rate * seconds
        for low, high in zip(edges[:-1] / seconds, edges[1:] / seconds, strict=True)
    ])  # fmt: skip
    deviation = ((found - expected) ** 2 / np.maximum(expected, 1)).sum()
    assert stats.chi2(10).sf(deviation) > 0.001
    assert shape.factor(np.linspace(0, 1, 1000)).max() <= shape.peak


def test_thinning_is_what_a_loop_does() -> None:
    """One candidate after the other, kept with the chance of its own moment."""
    shape, rate, seconds = Spike(height=5), 30.0, 60.0
    random = np.random.default_rng(11)
    kept: list[float] = []
    moment = 0.0
    while moment < seconds:
        gaps = random.exponential(1 / (rate * shape.peak), 1024)
        chances = random.random(1024)
        for gap, chance in zip(gaps, chances, strict=True):
            moment += gap
            at = moment / seconds
            height = shape.height if shape.begin <= at < shape.end else 1.0
            if moment < seconds and chance < height / shape.height:
                kept.append(moment)
    np.testing.assert_allclose(drawn(shape, rate, seconds, seed=11), kept, rtol=1e-9)


def test_parts_with_a_share_of_the_rate_add_up_to_all_of_it() -> None:
    parts = [drawn(Steady(), 20, 300, seed) for seed in range(4)]
    together = np.sort(np.concatenate(parts))
    assert stats.kstest(np.diff(together), stats.expon(scale=1 / 80).cdf).pvalue > 0.01


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 30))
def test_they_ascend_within_the_run_and_hang_on_the_seed(seed: int, seconds: float) -> None:
    moments = drawn(Day(), 20, seconds, seed)
    assert np.all(np.diff(moments) > 0)
    assert np.all((moments >= 0) & (moments < seconds))
    np.testing.assert_array_equal(moments, drawn(Day(), 20, seconds, seed))


def test_a_run_without_end_takes_no_memory() -> None:
    endless = poisson_arrivals(Soak(), 1000, 1e9, np.random.default_rng(0))
    assert len(list(islice(endless, 3000))) == 3000


def test_no_rate_has_no_arrivals() -> None:
    assert not len(drawn(Steady(), 0, 10))


@pytest.mark.parametrize(
    "table",
    [
        {"name": "wave"},
        {"name": "steady", "heigth": 3},
        {"name": "spike", "begin": 0.5, "end": 0.5},
        {"name": "spike", "height": 0.5},
        {"name": "day", "trough": 2},
        {"name": "ramp", "start": -1},
    ],
)
def test_a_shape_that_makes_no_sense_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Shape).validate_python(table)


GOOD = {"url": "http://127.0.0.1:1", "catalog": Path("shop"), "seconds": 10, "rate": 5}


@settings(deadline=None)
@given(
    rate=st.floats(0.01, 1e5),
    seconds=st.floats(0.1, 1e5),
    shape=st.sampled_from([Ramp(start=0.2), Spike(height=9), Day(days=2)]),
    processes=st.integers(1, 8),
)
def test_it_is_read_as_it_was_written(
    rate: float, seconds: float, shape: Ramp | Spike | Day, processes: int
) -> None:
    plan = LoadPlan(
        url="http://[::1]:80",
        headers={"Authorization": "Bearer x"},
        catalog=Path("a shop"),
        seconds=seconds,
        rate=rate,
        shape=shape,
        processes=processes,
        traffic=TrafficSettings(mix={"encode text": 2}, picture_px=(64, 300)),
    )
    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "127.0.0.1:1"}, "http://HOST:PORT"),
        ({"url": "https://shop"}, "http://HOST:PORT"),
        ({"rate": None}, "an open loop needs a rate"),
        ({"clients": 3}, "an open loop needs a rate"),
        ({"loop": "closed"}, "a closed loop needs clients"),
        ({"loop": "closed", "rate": None, "clients": 2, "shape": Day()}, "only an open loop"),
        ({"loop": "closed", "rate": None, "clients": 2, "processes": 3}, "more processes"),
        ({"rate": 0}, "greater than 0"),
        ({"rate": float("inf")}, "finite"),
        ({"seconds": 0}, "greater than 0"),
        ({"timeout_s": 1000}, "300"),
        ({"raet": 3}, "raet|unexpected"),
        ({"traffic": {"via": "torchserve", "mix": {"encode text": 0}}}, "sends nothing"),
        ({"traffic": {"via": "torchserve", "mix": {"encode txt": 1}}}, "encode text"),
        ({"traffic": {"bad_share": 1.5}}, "1"),
        ({"traffic": {"zipf": 1.5}}, "xtra"),
    ],
)
def test_one_that_makes_no_sense_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LoadPlan(**GOOD | change)


@pytest.mark.parametrize("change", [{"raet": 3}, {"seconds": "long"}, {"shape": {"name": "x"}}])
def test_from_json_the_place_is_named_in_one_sentence(change: dict[str, object]) -> None:
    table = GOOD | {"catalog": "shop"} | change
    with pytest.raises(SettingsError, match=rf"not a plan of a load test: {next(iter(change))}"):
        plan_from_json(json.dumps(table))
    with pytest.raises(SettingsError, match="not a plan"):
        plan_from_json("{")


def test_its_settings_say_how_to_repeat_it_but_not_the_token() -> None:
    plan = LoadPlan(**GOOD, headers={"Authorization": "Bearer secret"}, shape=Spike(height=3))
    settings = plan.settings()
    assert settings["rate"] == 5
    assert settings["shape.name"] == "spike"
    assert settings["shape.height"] == 3
    assert settings["traffic.mix.recommend history"] == 10
    assert settings["seed"] == 7
    assert "secret" not in json.dumps(settings)
