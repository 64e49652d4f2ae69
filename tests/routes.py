"""Paths of the gateway's routes."""

from contextlib import nullcontext

from newshelf.gateway.app import make_app, paths_of


def _no_state() -> None:
    raise RuntimeError("no request is answered")


ROUTES = paths_of(make_app(_no_state, lambda _app: nullcontext()))  # type: ignore[arg-type]
