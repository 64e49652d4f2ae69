"""The app: every verb of ``./run`` but ``test``, ``check`` (``tests``) and ``bench``."""

from typing import Annotated

import typer

from loadtest.tuning import verbs as tuning
from loadtest.verbs import loadtest
from newshelf.cli import pipeline, serve
from newshelf.cli.console import RootGroup
from newshelf.cli.items import items
from newshelf.cli.retrain import drift, retrain
from newshelf.cli.rollout import events, offpolicy, rollout, units
from newshelf.cli.rules import rules

app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Newshelf: recommend products on the day they are first put on the shelf.",
    epilog="`./run bench` measures methods, server and event store; `./run check` and `./run test` "
    "check a change. Each has `--help`.",
)

for _verb in (
    pipeline.sample,
    pipeline.train,
    pipeline.evaluate,
    pipeline.export,
    pipeline.archive,
    retrain,
    serve.serve,
    serve.stop,
    serve.status,
    serve.recommend,
    serve.encode,
    tuning.profile,
    tuning.tune,
    pipeline.analyse,
    pipeline.embed,
    drift,
    offpolicy,
):
    app.command()(_verb)

app.add_typer(pipeline.catalog, name="catalog")
app.add_typer(loadtest, name="loadtest")
app.add_typer(serve.keys, name="keys")
app.add_typer(items, name="items")
app.add_typer(rollout, name="rollout")
app.add_typer(events, name="events")
app.add_typer(units, name="units")
app.add_typer(rules, name="rules")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Declare ``--debug``, which ``VerbGroup`` reads."""
