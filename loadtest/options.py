"""What ``./run loadtest`` was asked for, and the plan that it makes."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from loadtest.scenarios import LoadPlan, Shape
from loadtest.traffic import TrafficSettings
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import WORKSPACES, only_server
from newshelf.server.client import Client
from newshelf.server.state import ServerState

SECONDS: Mapping[str, float] = {
    "steady": 30.0,
    "ramp": 60.0,
    "spike": 60.0,
    "soak": 600.0,
    "day": 300.0,
    "saturate": 60.0,
}
"""Of a run, by what is run."""
_RATE = 10.0


@dataclass(frozen=True)
class Options:
    """None leaves a value to its default."""

    rate: float | None = None
    clients: int | None = None
    think: float | None = None
    seconds: float | None = None
    warm_up: float | None = None
    processes: int | None = None
    seed: int | None = None
    timeout: float | None = None
    max_in_flight: int | None = None
    mix: str | None = None
    traffic: Sequence[str] = ()
    shape: Sequence[str] = ()
    slo: str | None = None
    out: Path | None = None
    catalog: Path | None = None
    workspace: Path | None = None
    host: str | None = None
    token: str | None = None

    def command(self, verb: str) -> str:
        """The line that asks for this again, without the token."""
        words = ["./run", "loadtest", verb]
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "token" or value is None:
                continue
            option = "--" + one.name.replace("_", "-")
            for each in value if isinstance(value, (tuple, list)) else [value]:
                words += [option, f"{each:g}" if isinstance(each, float) else str(each)]
        return shlex.join(words)


@dataclass(frozen=True)
class Target:
    """Whom the load is sent to."""

    url: str
    headers: Mapping[str, str]
    catalog: Path
    """What the requests are drawn from."""
    state: ServerState | None
    """Of a server of this machine, whose own side can be watched."""
    folder: Path
    """Where reports go."""


def find_target(options: Options) -> Target:
    """The server that ``--host`` names, or else the one that runs here.

    Raises:
        SettingsError: a host without a catalogue.
        ServerError: no server runs, or several do.
    """
    bearer = {"Authorization": f"Bearer {options.token}"} if options.token is not None else {}
    if options.host is None:
        state = only_server(options.catalog, options.workspace)
        with Client(state) as client:
            headers = bearer or client.authorization()
        folder = state.directory.parent / "loadtest"
        return Target(state.inference_url, headers, Path(state.catalog), state, folder)
    if options.catalog is None:
        raise SettingsError("--host needs --catalog DIR: what its requests are drawn from")
    if not options.catalog.is_dir():
        raise SettingsError(f"--catalog {options.catalog} is not a folder")
    url = options.host.rstrip("/")
    return Target(url, bearer, options.catalog.resolve(), None, WORKSPACES / "loadtest")


def make_plan(options: Options, target: Target, scenario: str) -> LoadPlan:
    """The plan of one run; ``scenario`` names its shape.

    Raises:
        SettingsError: an unknown setting, or a bad value.
    """
    closed = options.clients is not None
    rate = options.rate if closed or options.rate is not None else _RATE
    given: dict[str, Any] = {
        "warm_up_s": options.warm_up,
        "think_s": options.think,
        "processes": options.processes,
        "seed": options.seed,
        "timeout_s": options.timeout,
        "max_in_flight": options.max_in_flight,
    }
    traffic = _settings("--traffic", options.traffic)
    if options.mix is not None:
        traffic["mix"] = _settings("--mix", options.mix.split(","))
    shape = {"name": scenario, **_settings("--shape", options.shape)}
    try:
        return LoadPlan(
            url=target.url,
            headers=target.headers,
            catalog=target.catalog,
            scenario=scenario,
            seconds=options.seconds if options.seconds is not None else SECONDS[scenario],
            loop="closed" if closed else "open",
            rate=rate,
            clients=options.clients,
            shape=_checked("--shape", TypeAdapter(Shape), shape),
            traffic=_checked("--traffic", TypeAdapter(TrafficSettings), traffic),
            **{name: value for name, value in given.items() if value is not None},
        )
    except ValidationError as error:
        raise SettingsError(_problem("the load", error)) from error


def _settings(option: str, words: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` words; a value is read as YAML, so that 3 is a number and [1, 2] a list."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not name or not value:
            raise SettingsError(f"{option} {word.strip()!r}: write NAME=VALUE")
        if name in found:
            raise SettingsError(f"{option}: {name} is given twice")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SettingsError(f"{option} {name}: {value!r} cannot be read") from error
    return found


def _checked(option: str, adapter: TypeAdapter[Any], table: Mapping[str, Any]) -> Any:
    try:
        return adapter.validate_python(table)
    except ValidationError as error:
        raise SettingsError(_problem(option, error, adapter, table)) from error


def _problem(
    option: str,
    error: ValidationError,
    adapter: TypeAdapter[Any] | None = None,
    table: Mapping[str, Any] | None = None,
) -> str:
    first = error.errors()[0]
    # A shape's name stands first in the place, and a mix's key last.
    place = [str(part) for part in first["loc"] if part not in {"[key]", (table or {}).get("name")}]
    told = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    if first["type"] == "extra_forbidden" and adapter is not None:
        told = f"there is no such setting; there are {', '.join(_names(adapter, table or {}))}"
    elif first["type"] != "value_error":
        told = f"{told}, not {first['input']!r}"
    else:
        told = told.removeprefix("value error, ")
    return f"{option} {'.'.join(place)}: {told}" if place else f"{option}: {told}"


def _names(adapter: TypeAdapter[Any], table: Mapping[str, Any]) -> list[str]:
    schema = adapter.json_schema()
    if "name" in table:
        reference = schema["discriminator"]["mapping"][table["name"]]
        schema = schema["$defs"][reference.rpartition("/")[2]]
    names = [name for name in schema.get("properties", {}) if name != "name"]
    return names or ["none"]
