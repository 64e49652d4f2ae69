"""Begin a training run, or go on with the one that was broken off."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console

from newshelf.config import Settings
from newshelf.files import read_json, write_json
from newshelf.transfer.group import agreed, is_first
from newshelf.transfer.run import Run
from newshelf.transfer.tracking import NoTracker, Tracker, make_tracker

__all__ = ["LABELS", "start_run"]

LABELS = {
    "source": "fine-tuning on the source category",
    "target": "head of the target category",
}
"""What the progress bars say."""

_STARTED = "started.json"


@contextmanager
def start_run(
    settings: Settings, console: Console, *, state: Path, identity: str, runs: Path
) -> Iterator[Run]:
    """Yield the run; its tracker is closed at the end, as failed when there was an error.

    Args:
        settings: seed and ``[tracking]``.
        console: where progress is shown.
        state: a folder for what is kept of this run.
        identity: of everything the result depends on.
        runs: where trackers write unless the settings name another place.
    """
    name = agreed(_name(state, identity, console) if is_first() else None)
    tracker: Tracker = NoTracker()
    if is_first():
        tracker = make_tracker(settings.tracking, runs, name, _flat(settings))
    failed = True
    try:
        yield Run(settings.seed, console, state, identity, tracker, labels=LABELS)
        failed = False
    finally:
        tracker.close(failed=failed)


def _name(state: Path, identity: str, console: Console) -> str:
    """The name of the run that ``state`` was kept by, or a new one."""
    path = state / _STARTED
    try:
        kept = read_json(path)
        if kept["identity"] == identity:
            console.print(f"going on with the training that began at {kept['name']}")
            return str(kept["name"])
    except (OSError, ValueError, KeyError, TypeError):
        # None was begun, or it did not get as far as to say so.
        pass
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    write_json(path, {"identity": identity, "name": name})
    return name


def _flat(settings: Settings) -> dict[str, object]:
    table = settings.model_dump(mode="json")
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    plain = {key: value for key, value in table.items() if key not in sections}
    return plain | {
        f"{section}.{key}": value
        for section, keys in sections.items()
        for key, value in keys.items()
        if section not in {"archive", "sample"}
    }
