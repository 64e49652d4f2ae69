"""`./run bench transfer`: tasks, context and command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import Values, measured_once, versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, run_suite
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.cli.pipeline import settings_from
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.nn.spec import HeadName
from newshelf.pipeline.workspace import ROOT
from newshelf.training.backbone import Backbone, build_backbone, set_up_torch
from newshelf.training.labels import HeadLabels

TASKS: dict[str, str] = {
    "jewellery": "benchmarks.transfer.jewellery:run",
    "office": "benchmarks.transfer.office:run",
    "wild": "benchmarks.transfer.wild:run",
    "fusion": "benchmarks.transfer.fusion:run",
    "home": "benchmarks.transfer.home:run",
    "retail": "benchmarks.transfer.retail:run",
    "bundles": "benchmarks.transfer.bundles:run",
    "fusion-ranking": "benchmarks.transfer.fusion:run_ranking",
    "episodes": "benchmarks.transfer.episodes:run",
    "maml": "benchmarks.transfer.maml:run",
    "xdeepfm": "benchmarks.transfer.xdeepfm:run",
    "titles": "benchmarks.transfer.titles:run",
    "alignment": "benchmarks.transfer.alignment:run",
    "sample-zh": "benchmarks.transfer.sample_zh:run",
}
REVISIONS = {
    "jewellery": 2,
    "office": 3,
    "wild": 3,
    "home": 2,
    "retail": 3,
    "bundles": 2,
    "fusion-ranking": 2,
    "episodes": 2,
    "maml": 2,
    "xdeepfm": 2,
    "titles": 2,
}
"""Increased when a task changes so that its earlier results no longer hold."""


@dataclass(frozen=True)
class TransferContext:
    """Argument of every task."""

    data: Path
    """A folder of catalogues."""
    kept_back: Path | None
    """A folder like ``data`` with the held-out parts, which replace the tasks' own splits."""
    work: Path
    """Cached features and models."""
    figures: Path
    """Folder of the plots."""
    seeds: tuple[int, ...]
    console: Console
    settings: Settings

    def catalog(self, name: str) -> Catalog:
        """Return a data set.

        Raises:
            SettingsError: its folder does not exist.
        """
        folder = self.data / name
        if not folder.is_dir():
            raise SettingsError(
                f"{folder} is missing: the benchmark reads catalogues from --data DIR"
            )
        return read_catalog(folder)

    def kept_back_catalog(self, name: str) -> Catalog | None:
        """Return the held-out part of a data set, if there is one."""
        if self.kept_back is None or not (self.kept_back / name).is_dir():
            return None
        return read_catalog(self.kept_back / name)

    def backbone(
        self, catalog: Catalog, labels: Mapping[HeadName, HeadLabels] | None = None
    ) -> Backbone:
        """Return the packaged towers, heads of ``labels``, and the catalogue's cached features."""
        classes = {head: label.classes for head, label in (labels or {}).items()}
        features = self.work / "features" / catalog.name
        return build_backbone(catalog, self.settings, classes, features, self.console)

    def measured(self, task: str, seed: int, measure: Callable[[], Values]) -> Values:
        """Return the values of one seed, and keep them: a run that was interrupted resumes."""
        return measured_once(self.work / "seeds", f"{task}-{seed}", measure, self.data)


_DATA = ROOT.parent / "shared" / "data"
SUITE = Suite(
    "transfer",
    TASKS,
    Heading(
        "Transfer",
        """\
Which method of transfer learning helps where. Every method meets the baselines that a user \
would have without it, on the same data, features and test cases, and each figure is the mean \
± standard deviation over the seeds. A goal that was not reached says so, and the notes of its \
task say what was tried. Where a task compares several methods of its own, a goal is judged by the \
one that was chosen on data that no seed tests on. *Outdated* marks figures from before a change \
of their task.""",
        revisions=REVISIONS,
    ),
    lambda: versions("torch", "numpy", "timm", "scikit-learn"),
)


def run(
    only: Sequence[str],
    *,
    seeds: int,
    data: Path | None,
    kept_back: Path | None,
    out: Path | None,
    console: Console,
) -> int:
    """Run the tasks and write the report; see ``run_suite``.

    Raises:
        SettingsError: an unknown task, or a folder that does not exist.
    """
    if data is None and not _DATA.is_dir():
        raise SettingsError(
            "no catalogues to measure on: pass --data DIR, a folder with one catalogue each "
            "(docs/catalog.md) for the data sets that the tasks name"
        )
    return run_trained(
        SUITE, only, seeds=seeds, data=data, kept_back=kept_back, out=out, console=console
    )


def run_trained(
    suite: Suite,
    only: Sequence[str],
    *,
    seeds: int,
    data: Path | None,
    kept_back: Path | None = None,
    out: Path | None,
    console: Console,
) -> int:
    """Run the tasks of a suite whose argument is a ``TransferContext``; see ``run_suite``.

    Raises:
        SettingsError: an unknown task, or a folder that does not exist.
    """
    for option, folder in (("--data", data), ("--kept-back", kept_back)):
        if folder is not None and not folder.is_dir():
            raise SettingsError(f"{option} {folder} is not a folder")
    settings = settings_from(None)
    set_up_torch(settings)

    def context(report: Path) -> TransferContext:
        return TransferContext(
            data=data or _DATA,
            kept_back=kept_back,
            work=suite.work(),
            figures=suite.figures(report),
            seeds=tuple(range(seeds)),
            console=console,
            settings=settings,
        )

    options = {"seeds": seeds, "data": data, "kept_back": kept_back}
    return run_suite(
        suite, only, out, context, options=options, seeds=range(seeds), console=console
    )
