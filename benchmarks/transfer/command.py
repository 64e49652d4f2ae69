"""`./run bench transfer`: tasks, context and command."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.records import shown_path, versions
from benchmarks.report import Heading
from benchmarks.suite import Suite, chosen, run_suite
from newshelf.catalog import Catalog, read_catalog
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.pipeline.workspace import ROOT, WORKSPACES
from newshelf.transfer.build import Backbone, build_backbone

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
}
"""Task name → ``module:function``."""
REVISIONS = {
    "jewellery": 2,
    "office": 2,
    "wild": 2,
    "home": 2,
    "retail": 2,
    "bundles": 2,
    "fusion-ranking": 2,
    "episodes": 2,
    "maml": 2,
    "xdeepfm": 2,
}
"""Raised when a task, or what it measures, changes so that earlier results no longer hold."""


@dataclass(frozen=True)
class Context:
    """One run of the benchmark."""

    data: Path
    """A folder of catalogues."""
    kept_back: Path | None
    """A folder like ``data`` with what was kept back: tested on instead of an own split."""
    work: Path
    """Cached features and models."""
    figures: Path
    """Where plots go."""
    seeds: tuple[int, ...]
    console: Console
    settings: Settings

    def catalog(self, name: str) -> Catalog:
        """A data set.

        Raises:
            SettingsError: it is not there.
        """
        folder = self.data / name
        if not folder.is_dir():
            raise SettingsError(
                f"{folder} is missing: the benchmark reads catalogues from --data DIR"
            )
        return read_catalog(folder)

    def kept_back_catalog(self, name: str) -> Catalog | None:
        """What was kept back of a data set; None when nothing was."""
        if self.kept_back is None or not (self.kept_back / name).is_dir():
            return None
        return read_catalog(self.kept_back / name)

    def backbone(self, catalog: Catalog) -> Backbone:
        """Packaged towers and the catalogue's features from them, computed once."""
        return build_backbone(
            catalog, self.settings, {}, self.work / "features" / catalog.name, self.console
        )


REPORT = ROOT / "docs" / "benchmarks" / "transfer.md"
_FIGURES = ROOT / "docs" / "images" / "benchmarks" / "transfer"
_DATA = ROOT.parent / "shared" / "data"
_SUITE = Suite(
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
    versions,
)


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    only: Sequence[str] = ()
    """Tasks to run; all when empty."""
    seeds: int = 3
    data: Path | None = None
    """A folder of catalogues; None looks beside the repository."""
    kept_back: Path | None = None
    out: Path = REPORT

    def command(self) -> str:
        """The line that asks for this again."""
        words = ["./run bench transfer"]
        words += [f"--only {name}" for name in self.only]
        words += [f"--seeds {self.seeds}"]
        given = {"--data": self.data, "--kept-back": self.kept_back}
        words += [f"{name} {shown_path(path)}" for name, path in given.items() if path is not None]
        words += [f"--out {shown_path(self.out)}"] if self.out.resolve() != REPORT else []
        return " ".join(words)


def run(options: Options, settings: Settings, console: Console) -> int:
    """Measure, and keep what was measured: ``NAME/TASK.json`` beside the report, and figures.

    A task that fails does not stop the others. The report is written after every task, from
    the results of all that were ever measured for it.

    Returns:
        0, or 1 when a task failed.

    Raises:
        SettingsError: an unknown task, or a folder that is not there.
    """
    tasks = chosen(_SUITE, options.only)
    data = _data(options.data)
    if options.kept_back is not None and not options.kept_back.is_dir():
        raise SettingsError(f"--kept-back {options.kept_back} is not a folder")
    out = options.out.resolve()
    folder = out.with_suffix("")
    figures = _FIGURES if out == REPORT else folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    context = Context(
        data=data,
        kept_back=options.kept_back,
        work=WORKSPACES / "bench",
        figures=figures,
        seeds=tuple(range(options.seeds)),
        console=console,
        settings=settings,
    )
    return run_suite(
        _SUITE,
        tasks,
        context,
        out=out,
        command=options.command(),
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
