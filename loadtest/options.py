"""Options of ``./run loadtest`` and of the locustfile, and the target and plan they describe."""

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from loadtest.scenarios import LoadPlan, Shape
from loadtest.traffic import AskedKind, ShopKind, ShopTraffic, TrafficSettings
from newshelf.errors import ServerError, SettingsError
from newshelf.pipeline.workspace import WORKSPACES, only_server, servers
from newshelf.server.client import Client
from newshelf.server.state import Key, ServerState, read_keys

if TYPE_CHECKING:
    # Importing Locust patches the sockets and threads of its process.
    from locust.argument_parser import LocustArgumentParser

SECONDS: Mapping[str, float] = {
    "steady": 30.0,
    "ramp": 60.0,
    "spike": 60.0,
    "soak": 600.0,
    "day": 300.0,
    "saturate": 60.0,
}
"""Default length of a run, by scenario."""
_RATE = 10.0
Via = Literal["gateway", "torchserve"]
_SECRET = "--token"  # noqa: S105 - the option's name
_HIDDEN = "HIDDEN"


@dataclass(frozen=True)
class LoadOptions:
    """Options of ``./run loadtest``; None is the default."""

    via: Via = "gateway"
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
        """Return the command line that repeats the run, without the token."""
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
class LoadTarget:
    """The server under load."""

    url: str
    token: str | None
    catalog: Path
    """What the requests are drawn from."""
    state: ServerState | None = None
    """Of a server on this machine, whose own metrics can be read."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each request."""
        return {} if self.token is None else Key(key=self.token).header()

    @property
    def folder(self) -> Path:
        """Parent of the report folders."""
        parent = WORKSPACES if self.state is None else self.state.directory.parent
        return parent / "loadtest"


def find_target(
    host: str | None,
    *,
    via: Via,
    catalog: Path | None = None,
    workspace: Path | None = None,
    token: str | None = None,
    key_file: Path | None = None,
) -> LoadTarget:
    """Return the server of ``--host``, or the one that runs here.

    What the options leave open is taken from the running server.

    Args:
        host: its URL.
        via: the part of the server that gets the requests.
        catalog: folder that requests are drawn from; which server, if several run.
        workspace: which server, if several run.
        token: its token, or else
        key_file: TorchServe's file with the token.

    Raises:
        SettingsError: the catalogue of the host is unknown, or not a folder.
        ServerError: no server runs, several do, or the keys cannot be read.
    """
    if host is None:
        state: ServerState | None = only_server(catalog, workspace)
    else:
        host = host.rstrip("/")
        if catalog is not None and not catalog.is_dir():
            raise SettingsError(f"--catalog {catalog} is not a folder")
        local = (one for one in servers(catalog, workspace) if _url(one, via) == host)
        state = next(local, None)
    if state is not None:
        url, folder = _url(state, via), catalog or Path(state.catalog)
        if not url:
            raise ServerError("the gateway does not run (gateway.enabled); give --via torchserve")
    elif host is not None and catalog is not None:
        url, folder = host, catalog
    else:
        raise SettingsError(
            f"--host {host} needs --catalog DIR: the folder that its requests are drawn from"
        )
    if token is None:
        token = _token(state, key_file, via)
    return LoadTarget(url, token, folder.resolve(), state)


def make_plan(options: LoadOptions, target: LoadTarget, scenario: str) -> LoadPlan:
    """Return the plan of one run; ``scenario`` names its shape.

    Raises:
        SettingsError: a setting is unknown, or a value invalid.
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
            traffic=traffic_of(options.via, options.mix, _settings("--traffic", options.traffic)),
            **{name: value for name, value in given.items() if value is not None},
        )
    except ValidationError as error:
        raise SettingsError(_problem("the load", error)) from error


def traffic_of(
    via: Via, mix: str | None, settings: Mapping[str, Any]
) -> TrafficSettings | ShopTraffic:
    """Return the traffic of ``--mix`` and other settings.

    Raises:
        SettingsError: a kind or setting is unknown, or a value invalid.
    """
    weights = {} if mix is None else {"mix": _mix(mix, via)}
    model = ShopTraffic if via == "gateway" else TrafficSettings
    found: TrafficSettings | ShopTraffic = _checked(
        "--traffic", TypeAdapter(model), {**settings, **weights}
    )
    return found


def add_options(parser: "LocustArgumentParser") -> None:
    """Add the locustfile's options, named like those of ``./run loadtest``."""
    hidden: dict[str, Any] = {"include_in_web_ui": False}
    parser.add_argument(
        "--via", choices=get_args(Via), default="gateway", help="the server's part to load"
    )
    parser.add_argument("--token", help="the server's token, if not in its key file", **hidden)
    parser.add_argument("--key-file", help="TorchServe's file with the inference key", **hidden)
    parser.add_argument(
        "--catalog",
        help="folder that requests are drawn from; selects the server if several run",
        **hidden,
    )
    parser.add_argument("--workspace", help="selects the server if several run", **hidden)
    parser.add_argument("--seed", type=int, default=7, help="seed of the requests", **hidden)
    parser.add_argument(
        "--mix", default="", help="weights of Mix, such as 'recommend history=10, encode text=1'"
    )
    parser.add_argument(
        "--cold-share", type=float, help="share of histories with an unknown product (TorchServe)"
    )
    parser.add_argument("--bad-share", type=float, default=0.0, help="share of bad requests")
    parser.add_argument(
        "--rate", type=float, help="requests/s of all OpenLoop users together: Poisson arrivals"
    )
    parser.add_argument("--p99-ms", type=float, help="limit of the 99th percentile")
    parser.add_argument("--record", help="write a record of the run to this file", **hidden)


def locust_target(options: Namespace, host: str | None) -> LoadTarget:
    """Return the target of the locustfile's options; see ``find_target``."""
    return find_target(
        host,
        via=options.via,
        catalog=_path(options.catalog),
        workspace=_path(options.workspace),
        token=options.token or None,
        key_file=_path(options.key_file),
    )


def command_line(words: Sequence[str]) -> str:
    """Return the command line for a record, without the token."""
    shown = list(words)
    for place, word in enumerate(shown):
        if word == _SECRET and place + 1 < len(shown):
            shown[place + 1] = _HIDDEN
        elif word.startswith(f"{_SECRET}="):
            shown[place] = f"{_SECRET}={_HIDDEN}"
    return shlex.join(shown)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _url(state: ServerState, via: Via) -> str:
    gateway = state.gateway.url if state.gateway else ""
    return gateway if via == "gateway" else state.inference_url


def _token(state: ServerState | None, key_file: Path | None, via: Via) -> str | None:
    if key_file is not None:
        return read_keys(key_file).inference.token
    if state is None:
        return None
    if via == "gateway":
        key = state.directory.parent / "gateway" / "local.key"
        try:
            return key.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(f"the key {key} cannot be read ({error}); give --token") from error
    with Client(state) as client:
        return client.authorization()["Authorization"].removeprefix("Bearer ")


def _mix(text: str, via: Via) -> dict[str, float]:
    kinds = get_args(ShopKind if via == "gateway" else AskedKind)
    mix: dict[str, float] = {}
    for name, weight in _settings("--mix", [one for one in text.split(",") if one.strip()]).items():
        if name not in kinds:
            raise SettingsError(f"--mix: there is no kind {name!r}; there are {', '.join(kinds)}")
        mix[name] = weight
    return mix


def _settings(option: str, words: Sequence[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE`` words; a value is YAML, so 3 is a number and [1, 2] a list."""
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
    # The place starts with the name of a shape and ends with the key of a mix.
    place = [str(part) for part in first["loc"] if part not in {"[key]", (table or {}).get("name")}]
    message = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    if first["type"] == "extra_forbidden" and adapter is not None:
        message = f"there is no such setting; there are {', '.join(_names(adapter, table or {}))}"
    elif first["type"] != "value_error":
        message = f"{message}, not {first['input']!r}"
    else:
        message = message.removeprefix("value error, ")
    return f"{option} {'.'.join(place)}: {message}" if place else f"{option}: {message}"


def _names(adapter: TypeAdapter[Any], table: Mapping[str, Any]) -> list[str]:
    schema = adapter.json_schema()
    if "name" in table:
        reference = schema["discriminator"]["mapping"][table["name"]]
        schema = schema["$defs"][reference.rpartition("/")[2]]
    names = [name for name in schema.get("properties", {}) if name not in {"name", "via"}]
    return names or ["none"]
