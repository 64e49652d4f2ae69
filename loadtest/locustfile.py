"""Shoppers ask for recommendations; now and then the shop puts up a new product.

Run it against a server that ``./run serve --detach`` started, see ``loadtest/README.md``.
The exit code is 1 when a request failed, or when the 99th percentile of all answers is
above ``--p99-ms``.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from locust import HttpUser, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.shop import Shop
from newshelf.pipeline.find import only_server
from newshelf.server.keys import read_keys
from newshelf.server.state import ServerState


@events.init_command_line_parser.add_listener
def _arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--catalog", default=None, help="which server, when several run")
    parser.add_argument("--workspace", default=None, help="likewise, by its folder")
    parser.add_argument("--seed", type=int, default=7, help="of the requests")
    parser.add_argument("--p99-ms", type=float, default=None, help="the most it may be")


@events.init.add_listener
def _address(environment: Environment, **_: Any) -> None:
    environment.host = environment.host or _server(environment).inference_url


@events.quitting.add_listener
def _verdict(environment: Environment, **_: Any) -> None:
    total = environment.stats.total
    limit_ms = _options(environment).p99_ms
    p99_ms = total.get_response_time_percentile(0.99)
    slow = limit_ms is not None and p99_ms is not None and p99_ms > limit_ms
    if slow:
        print(f"p99 is {p99_ms:.0f} ms; at most {limit_ms:.0f} ms were asked for")
    failed = total.num_failures > 0 or total.num_requests == 0
    environment.process_exit_code = int(failed or slow)


class Shopper(HttpUser):
    """Mostly recommendations from a history of ids; some work for the encoder."""

    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        """Take the token and the catalogue of the server under test."""
        state = _server(self.environment)
        key = read_keys(state.key_file).inference
        self.client.headers.update(key.header())
        self.shop = Shop.open(Path(state.catalog), _options(self.environment).seed)

    @task(10)
    def recommend(self) -> None:
        """From ids of the index: no tower runs."""
        self._post("recommender", "recommend", self.shop.recommendation())

    @task(1)
    def recommend_from_unseen(self) -> None:
        """From a product sent with the request: all towers run."""
        self._post("recommender", "recommend from unseen", self.shop.recommendation_from_unseen())

    @task(2)
    def encode(self) -> None:
        """A new product's embedding."""
        self._post("encoder", "encode", self.shop.product())

    def _post(self, model: str, name: str, body: dict[str, Any]) -> None:
        self.client.post(f"/predictions/{model}", json=body, name=name)


def _options(environment: Environment) -> Namespace:
    options: Namespace | None = environment.parsed_options
    if options is None:
        raise RuntimeError("start this file with the locust command, which parses its options")
    return options


def _server(environment: Environment) -> ServerState:
    options = _options(environment)
    catalog = Path(options.catalog) if options.catalog else None
    workspace = Path(options.workspace) if options.workspace else None
    return only_server(catalog, workspace)
