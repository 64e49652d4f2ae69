"""A plan is checked when it is made, and read as it was written."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loadtest.scenarios import Day, LoadPlan, Ramp, Spike, plan_from_json, plan_to_json
from loadtest.traffic import TrafficSettings
from newshelf.errors import SettingsError

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
        ({"traffic": {"mix": {"encode text": 0}}}, "sends nothing"),
        ({"traffic": {"mix": {"encode txt": 1}}}, "encode text"),
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
