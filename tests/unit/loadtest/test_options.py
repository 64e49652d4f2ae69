"""Options of the command line and of the locustfile."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest

from loadtest.options import (
    SECONDS,
    LoadOptions,
    LoadTarget,
    add_options,
    command_line,
    find_target,
    locust_target,
    make_plan,
    traffic_of,
)
from loadtest.scenarios import plan_from_json, plan_to_json
from loadtest.traffic import TrafficSettings
from newshelf.errors import ServerError, SettingsError

VIA = "torchserve"
TARGET = LoadTarget("http://127.0.0.1:8080", "t", Path("/shop"))


def test_defaults_are_an_open_loop_of_10_requests_a_second():
    plan = make_plan(LoadOptions(via=VIA), TARGET, "steady")
    assert (plan.loop, plan.rate, plan.clients, plan.seconds) == ("open", 10.0, None, 30.0)
    assert (plan.scenario, plan.shape.name, plan.headers) == ("steady", "steady", TARGET.headers)


def test_every_option_reaches_the_plan():
    options = LoadOptions(
        via=VIA, rate=20.0, seconds=9.0, warm_up=1.0, processes=2, seed=3, timeout=4.0,
        max_in_flight=50, mix="recommend history=3,encode both=1",
        traffic=["cold_share=0.5", "picture_px=[64, 128]"], shape=["height=2"],
    )  # fmt: skip
    plan = make_plan(options, TARGET, "spike")
    assert (plan.rate, plan.seconds, plan.warm_up_s, plan.processes) == (20, 9, 1, 2)
    assert (plan.seed, plan.timeout_s, plan.max_in_flight) == (3, 4, 50)
    assert plan.traffic.mix == {"recommend history": 3, "encode both": 1}
    assert (plan.traffic.cold_share, plan.traffic.picture_px) == (0.5, (64, 128))
    assert plan.shape.height == 2


def test_the_gateway_is_the_default_and_has_kinds_and_settings_of_its_own():
    options = LoadOptions(mix="recommend=1,items=2", traffic=["taste=0.5"])
    plan = make_plan(options, TARGET, "steady")
    assert (plan.traffic.via, plan.traffic.taste) == ("gateway", 0.5)
    assert plan_from_json(plan_to_json(plan)) == plan
    assert plan.settings()["traffic.via"] == "gateway"
    for wrong in ({"mix": "encode text=1"}, {"traffic": ["cold_share=1"]}, {"mix": "items=1"}):
        with pytest.raises(SettingsError):
            make_plan(LoadOptions(**wrong), TARGET, "steady")


def test_clients_make_it_a_closed_loop():
    plan = make_plan(LoadOptions(via=VIA, clients=4, think=0.5), TARGET, "steady")
    assert (plan.loop, plan.clients, plan.rate, plan.think_s) == ("closed", 4, None, 0.5)


@pytest.mark.parametrize("scenario", sorted(set(SECONDS) - {"saturate"}))
def test_every_scenario_has_a_length_and_a_shape(scenario):
    plan = make_plan(LoadOptions(via=VIA), TARGET, scenario)
    assert (plan.shape.name, plan.seconds) == (scenario, SECONDS[scenario])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"traffic": ["cold=1"]}, "--traffic cold: "),
        ({"traffic": ["cold_share"]}, "--traffic 'cold_share': write NAME=VALUE"),
        ({"traffic": ["k=1", "k=2"]}, "--traffic: k "),
        ({"traffic": ["k=[1"]}, "--traffic k: '[1'"),
        ({"traffic": ["bad_share=2"]}, "--traffic bad_share: "),
        ({"mix": "encode=1"}, "--mix: there is no kind 'encode'"),
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
        make_plan(LoadOptions(via=VIA, **options), TARGET, "spike")
    assert told in raised.value.message
    assert "\n" not in raised.value.message


def test_a_server_elsewhere_needs_a_catalogue(tmp_path):
    with pytest.raises(SettingsError, match="needs --catalog"):
        find_target("http://10.0.0.1:8080", via=VIA)
    with pytest.raises(SettingsError, match="is not a folder"):
        find_target("http://10.0.0.1:8080", via=VIA, catalog=tmp_path / "none")
    target = find_target("http://10.0.0.1:8080/", via=VIA, catalog=tmp_path, token="secret")
    assert (target.url, target.state) == ("http://10.0.0.1:8080", None)
    assert target.headers == {"Authorization": "Bearer secret"}


def test_the_command_repeats_it_without_the_token():
    options = LoadOptions(
        via=VIA, rate=20.0, mix="encode text=1", traffic=["k=5", "bad_share=0"], token="secret",
        out=Path("a b"),
    )  # fmt: skip
    assert options.command("spike") == (
        "./run loadtest spike --via torchserve --rate 20 --mix 'encode text=1' --traffic k=5 "
        "--traffic bad_share=0 --out 'a b'"
    )


HOST = "http://127.0.0.1:9"


class Parser(ArgumentParser):
    """Stands for Locust's, whose import would patch the sockets and threads of the tests."""

    def add_argument(self, *names: str, include_in_web_ui: bool = True, **further: Any) -> Any:
        return super().add_argument(*names, **further)


def options(*words: str) -> Namespace:
    parser = Parser()
    add_options(parser)
    return parser.parse_args(["--via", VIA, *words])


def locust_traffic(given: Namespace) -> TrafficSettings:
    shares = {"cold_share": given.cold_share, "bad_share": given.bad_share}
    given_shares = {name: share for name, share in shares.items() if share is not None}
    traffic = traffic_of(given.via, given.mix or None, given_shares)
    assert isinstance(traffic, TrafficSettings)
    return traffic


def keys(folder: Path, token: str) -> Path:
    path = folder / "key_file.json"
    entry = {"key": token, "expiration time": "2100-01-01T00:00:00Z"}
    path.write_text(
        json.dumps({"management": entry, "inference": entry, "API": {"key": "another"}})
    )
    path.chmod(0o600)
    return path


def test_host_token_and_catalogue_are_taken_as_given(tmp_path: Path) -> None:
    target = locust_target(options("--catalog", str(tmp_path), "--token", "t"), f"{HOST}/")
    assert (target.url, target.catalog) == (HOST, tmp_path)
    assert target.headers == {"Authorization": "Bearer t"}


def test_the_token_is_read_from_a_key_file(tmp_path: Path) -> None:
    path = keys(tmp_path, "from the file")
    target = locust_target(options("--catalog", str(tmp_path), "--key-file", str(path)), HOST)
    assert target.token == "from the file"


def test_a_server_without_tokens_is_sent_none(tmp_path: Path) -> None:
    assert locust_target(options("--catalog", str(tmp_path)), HOST).headers == {}


def test_a_host_of_which_nothing_is_known_needs_a_catalogue(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--catalog"):
        locust_target(options("--workspace", str(tmp_path)), HOST)
    with pytest.raises(SettingsError, match="is not a folder"):
        locust_target(options("--catalog", str(tmp_path / "none")), HOST)


def test_without_a_host_a_server_must_run(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no server is running"):
        locust_target(options("--workspace", str(tmp_path)), None)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    with pytest.raises(ServerError, match=r"none\.json"):
        locust_target(options("--catalog", str(tmp_path), "--key-file", path), HOST)


def test_the_mix_is_given_in_words() -> None:
    asked = options("--mix", " encode text = 1, recommend history=9,", "--cold-share", "0.5")
    traffic = locust_traffic(asked)
    assert traffic.mix == {"encode text": 1, "recommend history": 9}
    assert (traffic.cold_share, traffic.bad_share) == (0.5, 0)
    assert sum(locust_traffic(options()).mix.values()) > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mix", "encode sound=1"], "'encode sound'; there are encode picture"),
        (["--mix", "encode text"], "write NAME=VALUE"),
        (["--mix", "encode text=0"], "sends nothing"),
        (["--mix", "encode text=-1"], "mix.encode text"),
        (["--bad-share", "2"], "bad_share"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        locust_traffic(options(*words))


def test_a_record_never_shows_the_token() -> None:
    words = ["locust", "--token", "secret", "-f", "a file.py", "--token=secret"]
    assert command_line(words) == "locust --token HIDDEN -f 'a file.py' --token=HIDDEN"
