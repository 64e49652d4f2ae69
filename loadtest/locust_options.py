"""The options that the locustfile adds to Locust's own, and the target that they mean."""

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from loadtest.traffic import AskedKind, TrafficSettings
from newshelf.errors import SettingsError
from newshelf.files import problems
from newshelf.pipeline.workspace import only_server, servers
from newshelf.server.state import Key, ServerState, read_keys

if TYPE_CHECKING:
    # Importing Locust patches the process's sockets and threads: that is for its own process.
    from locust.argument_parser import LocustArgumentParser


_SECRET = "--token"  # noqa: S105 - the option's name
_HIDDEN = "HIDDEN"


@dataclass(frozen=True)
class Target:
    """Whom requests are sent to, and what they are drawn from."""

    url: str
    token: str | None
    catalog: Path

    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {} if self.token is None else Key(self.token, None).header()


def add_options(parser: "LocustArgumentParser") -> None:
    """Add what ``./run`` verbs call the same."""
    hidden: dict[str, Any] = {"include_in_web_ui": False}
    parser.add_argument("--token", help="of the server; else its key file's", **hidden)
    parser.add_argument("--key-file", help="TorchServe's, with the inference key", **hidden)
    parser.add_argument(
        "--catalog",
        help="folder that requests are drawn from, and which server is meant when several run",
        **hidden,
    )
    parser.add_argument("--workspace", help="which server is meant, by its folder", **hidden)
    parser.add_argument("--seed", type=int, default=7, help="of the requests", **hidden)
    parser.add_argument(
        "--mix", default="", help="weights of Mix, such as 'recommend history=10, encode text=1'"
    )
    parser.add_argument(
        "--cold-share", type=float, default=0.1, help="histories with a product no index knows"
    )
    parser.add_argument("--bad-share", type=float, default=0.0, help="requests that are bad")
    parser.add_argument(
        "--rate", type=float, help="requests/s of all OpenLoop users together: Poisson arrivals"
    )
    parser.add_argument("--p99-ms", type=float, help="the most the 99th percentile may be")
    parser.add_argument("--record", help="write a record of the run to this file", **hidden)


def find_target(options: Namespace, host: str | None) -> Target:
    """Look for what the options leave open at the server that runs.

    Args:
        options: those of ``add_options``.
        host: Locust's ``--host``.

    Raises:
        ServerError: none runs, several do, or its key cannot be read.
        SettingsError: a host is given whose catalogue is not known.
    """
    catalog, workspace = _path(options.catalog), _path(options.workspace)
    state = _at(host, catalog, workspace) if host else only_server(catalog, workspace)
    folder = catalog or (Path(state.catalog) if state else None)
    if folder is None:
        raise SettingsError(
            f"nothing is known of {host}: say by --catalog what requests are drawn from"
        )
    url = host or (state.inference_url if state else "")
    return Target(url.rstrip("/"), _token(options, state), folder)


def traffic_of(options: Namespace) -> TrafficSettings:
    """The traffic of the users ``Mix`` and ``OpenLoop``.

    Raises:
        SettingsError: an unknown kind, or a weight or share that is none.
    """
    mix = _mix(options.mix)
    try:
        return TrafficSettings(
            cold_share=options.cold_share,
            bad_share=options.bad_share,
            **({"mix": mix} if mix else {}),
        )
    except ValidationError as error:
        raise SettingsError(problems(error, "--mix")) from error


def command_line(words: Sequence[str]) -> str:
    """The command for a record, without the token."""
    shown = list(words)
    for place, word in enumerate(shown):
        if word == _SECRET and place + 1 < len(shown):
            shown[place + 1] = _HIDDEN
        elif word.startswith(f"{_SECRET}="):
            shown[place] = f"{_SECRET}={_HIDDEN}"
    return shlex.join(shown)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _at(host: str, catalog: Path | None, workspace: Path | None) -> ServerState | None:
    if catalog is not None and not catalog.is_dir():
        raise SettingsError(f"--catalog {catalog} is not a folder")
    found = (state for state in servers(catalog, workspace) if state.inference_url == host)
    return next(found, None)


def _token(options: Namespace, state: ServerState | None) -> str | None:
    if options.token:
        return str(options.token)
    if options.key_file:
        return read_keys(Path(options.key_file)).inference.token
    return None if state is None else read_keys(state.key_file).inference.token


def _mix(text: str) -> Mapping[AskedKind, float]:
    kinds = {kind: kind for kind in get_args(AskedKind)}
    mix: dict[AskedKind, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = (word.strip() for word in part.partition("="))
        if name not in kinds:
            raise SettingsError(f"--mix: there is no kind {name!r}; there are {', '.join(kinds)}")
        try:
            mix[kinds[name]] = float(weight)
        except ValueError:
            raise SettingsError(f"--mix: {part!r} has no weight; write {name}=1") from None
    return mix
