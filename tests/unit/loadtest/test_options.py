"""From the command line's words to a plan."""

from pathlib import Path

import pytest

from loadtest.options import SECONDS, Options, Target, find_target, make_plan
from newshelf.errors import SettingsError

TARGET = Target("http://127.0.0.1:8080", {"Authorization": "Bearer t"}, Path("/shop"), None,
                Path("/reports"))  # fmt: skip


def test_defaults_are_an_open_loop_of_10_requests_a_second():
    plan = make_plan(Options(), TARGET, "steady")
    assert (plan.loop, plan.rate, plan.clients, plan.seconds) == ("open", 10.0, None, 30.0)
    assert (plan.scenario, plan.shape.name, plan.headers) == ("steady", "steady", TARGET.headers)


def test_every_option_reaches_the_plan():
    options = Options(
        rate=20.0, seconds=9.0, warm_up=1.0, processes=2, seed=3, timeout=4.0, max_in_flight=50,
        mix="recommend history=3,encode both=1", traffic=["cold_share=0.5", "picture_px=[64, 128]"],
        shape=["height=2"],
    )  # fmt: skip
    plan = make_plan(options, TARGET, "spike")
    assert (plan.rate, plan.seconds, plan.warm_up_s, plan.processes) == (20, 9, 1, 2)
    assert (plan.seed, plan.timeout_s, plan.max_in_flight) == (3, 4, 50)
    assert plan.traffic.mix == {"recommend history": 3, "encode both": 1}
    assert (plan.traffic.cold_share, plan.traffic.picture_px) == (0.5, (64, 128))
    assert plan.shape.height == 2


def test_clients_make_it_a_closed_loop():
    plan = make_plan(Options(clients=4, think=0.5), TARGET, "steady")
    assert (plan.loop, plan.clients, plan.rate, plan.think_s) == ("closed", 4, None, 0.5)


@pytest.mark.parametrize("scenario", sorted(set(SECONDS) - {"saturate"}))
def test_every_scenario_has_a_length_and_a_shape(scenario):
    plan = make_plan(Options(), TARGET, scenario)
    assert (plan.shape.name, plan.seconds) == (scenario, SECONDS[scenario])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"traffic": ["cold=1"]}, "--traffic cold: "),
        ({"traffic": ["cold_share"]}, "--traffic 'cold_share': write NAME=VALUE"),
        ({"traffic": ["k=1", "k=2"]}, "--traffic: k "),
        ({"traffic": ["k=[1"]}, "--traffic k: '[1'"),
        ({"traffic": ["bad_share=2"]}, "--traffic bad_share: "),
        ({"mix": "encode=1"}, "--traffic mix.encode: "),
        ({"mix": "encode text=0"}, "--traffic: the mix sends nothing"),
        ({"shape": ["hight=2"]}, "--shape hight: "),
        ({"shape": ["begin=0.9"]}, "--shape: a spike must begin"),
        ({"rate": 0.0}, "rate: input should be greater than 0"),
        ({"rate": 5.0, "clients": 2}, "a closed loop needs clients"),
        ({"processes": 2000}, "more processes than clients"),
    ],
)
def test_what_is_refused_is_named(options, told):
    with pytest.raises(SettingsError) as raised:
        make_plan(Options(**options), TARGET, "spike")
    assert told in raised.value.message
    assert "\n" not in raised.value.message


def test_a_server_elsewhere_needs_a_catalogue(tmp_path):
    with pytest.raises(SettingsError, match="--host needs --catalog"):
        find_target(Options(host="http://10.0.0.1:8080"))
    with pytest.raises(SettingsError, match="is not a folder"):
        find_target(Options(host="http://10.0.0.1:8080", catalog=tmp_path / "none"))
    target = find_target(Options(host="http://10.0.0.1:8080/", catalog=tmp_path, token="secret"))
    assert (target.url, target.state) == ("http://10.0.0.1:8080", None)
    assert target.headers == {"Authorization": "Bearer secret"}


def test_the_command_repeats_it_without_the_token():
    options = Options(
        rate=20.0, mix="encode text=1", traffic=["k=5", "bad_share=0"], token="secret",
        out=Path("a b"),
    )  # fmt: skip
    assert options.command("spike") == (
        "./run loadtest spike --rate 20 --mix 'encode text=1' --traffic k=5 "
        "--traffic bad_share=0 --out 'a b'"
    )
