"""A training as it is handed to one or several processes."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from newshelf.catalog import read_catalog
from newshelf.config import Settings
from newshelf.transfer.start import start_run
from newshelf.transfer.train import train

__all__ = ["TrainJob", "run_job"]


@dataclass(frozen=True)
class TrainJob:
    """Where everything is; it can be sent to another process."""

    catalog: Path
    settings: Settings
    out: Path
    """The checkpoint."""
    features: Path
    """Cached features."""
    state: Path
    """What is kept of a run, to go on with it."""
    runs: Path
    """Where trackers write unless the settings name another place."""
    identity: str
    """Of everything the result depends on; what was kept under another one is not used."""
    strict: bool = False


def run_job(job: TrainJob, console: Console) -> None:
    """Read the catalogue, train, and write the checkpoint.

    Raises:
        CatalogError: the catalogue cannot be used.
        SettingsError: the tracker cannot.
        TrainingError: there is not enough, or not the right, data.
        WeightsError: a tower's weights cannot be used.
    """
    catalog = read_catalog(job.catalog, strict=job.strict)
    console.print(catalog.report.summary(console.width), markup=False)
    with start_run(
        job.settings, console, state=job.state, identity=job.identity, runs=job.runs
    ) as run:
        train(catalog, job.settings, job.out, job.features, run)
