"""`./run bench transfer`: tasks, context and command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import Values, measured_once, versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, run_suite
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT
from newshelf.training.backbone import Backbone, build_backbone

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

    def backbone(self, catalog: Catalog) -> Backbone:
        """Return the packaged towers and the catalogue's cached features from them."""
        return build_backbone(
            catalog, self.settings, {}, self.work / "features" / catalog.name, self.console
        )

    def measured(self, task: str, seed: int, measure: Callable[[], Values]) -> Values:
        """Return the values of one seed, and keep them: a run that was interrupted resumes."""
        return measured_once(self.work / "seeds", f"{task}-{seed}", measure, self.data)


_DATA = ROOT.parent / "shared" / "data"
_SUITE = Suite(
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
    settings: Settings,
    console: Console,
) -> int:
    """Run the tasks (all without ``only``) and write the report; see ``benchmarks.suite``.

    ``kept_back`` is a folder like ``data`` with the held-out parts. 1 is returned if a task failed.

    Raises:
        SettingsError: an unknown task, or a folder that does not exist.
    """
    tasks, report = _SUITE.chosen(only), _SUITE.report(out)
    folder = _data(data)
    if kept_back is not None and not kept_back.is_dir():
        raise SettingsError(f"--kept-back {kept_back} is not a folder")
    context = TransferContext(
        data=folder,
        kept_back=kept_back,
        work=_SUITE.work(),
        figures=_SUITE.figures(report),
        seeds=tuple(range(seeds)),
        console=console,
        settings=settings,
    )
    return run_suite(
        _SUITE,
        tasks,
        context,
        report=report,
        command=_SUITE.command(only, report, seeds=seeds, data=data, kept_back=kept_back),
        seeds=context.seeds,
        console=console,
    )


def _data(given: Path | None) -> Path:
    data = given or _DATA
    if not data.is_dir():
        raise SettingsError(
            f"--data {given} is not a folder"
            if given
            else "no catalogues to measure on: pass --data DIR, a folder with one catalogue each "
            "(docs/catalog.md) for the data sets that the tasks name"
        )
    return data
