"""Export of a checkpoint: graphs in all formats, each checked against the eager model."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from export.graphs import Axes, check_size, write_onnx, write_openvino, write_torchscript
from export.parity import (
    Batch,
    ParityResult,
    Subject,
    check_case,
    encoder_cases,
    encoder_inputs,
    history_inputs,
    projector_cases,
    report,
    scorer_cases,
    unit_vectors,
    worst,
)
from newshelf.config import RuntimeKind
from newshelf.files import directory_aside, write_json
from newshelf.nn.checkpoint import Checkpoint, load_checkpoint
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import SPEC_FILE, ScorerSpec
from newshelf.serving.runtimes.base import (
    Device,
    Runtime,
    encoder_graph,
    open_runtime,
    projector_graph,
    scorer_graph,
)
from newshelf.serving.settings import TOKENIZER, write_version


def subjects(checkpoint: Checkpoint) -> list[Subject]:
    """Encoder, projector and scorer; the encoder alone without a scorer."""
    found = [encoder_subject(checkpoint.encoder)]
    if checkpoint.scorer is not None:
        found.append(_projector(checkpoint.scorer, checkpoint.spec.encoder.embedding))
        found.append(_scorer(checkpoint.scorer, checkpoint.scorer.spec))
    return found


def encoder_subject(encoder: Encoder) -> Subject:
    """Return the encoder with what its export needs."""
    spec = encoder.spec
    graph = encoder_graph(spec)
    texts: Axes = {0: "texts", 1: "tokens"}
    example = Batch(5, pictures=(3, 1), texts=(0, 2, 4), attributes=(0, 1, 2, 3), tokens=7)
    return Subject(
        graph=graph,
        module=encoder,
        example=encoder_inputs(spec, example),
        axes=({0: "pictures"}, {0: "pictures"}, texts, texts, {0: "texts"}, {0: "batch"}),
        cases=lambda: encoder_cases(spec),
        unbounded=frozenset(graph.outputs[1:]),
    )


def _projector(scorer: SiameseScorer, embedding: int) -> Subject:
    return Subject(
        graph=projector_graph(),
        module=scorer.project,
        example=(unit_vectors(2, embedding, torch.Generator().manual_seed(0)),),
        axes=({0: "rows"},),
        cases=lambda: projector_cases(embedding),
        unbounded=frozenset(),
    )


def _scorer(scorer: SiameseScorer, spec: ScorerSpec) -> Subject:
    history: Axes = {0: "batch", 1: "history"}
    return Subject(
        graph=scorer_graph(),
        module=scorer.score,
        example=history_inputs((2, 3, 4), spec.width, empty=False),
        axes=(history, history, {0: "batch", 1: "candidates"}),
        cases=lambda: scorer_cases(spec),
        unbounded=frozenset({"scores"}),
    )


PARITY = "parity.json"
_KINDS: tuple[RuntimeKind, ...] = ("torchscript", "onnxruntime", "openvino")


@dataclass(frozen=True)
class ExportResult:
    """The result of an export."""

    directory: Path
    version: str
    """The checkpoint's."""
    worst: dict[str, float]
    """Largest difference from eager by graph and runtime."""
    seconds: dict[str, float]
    """Time of each step: ``encoder onnx``, ``encoder parity``, …"""


@dataclass
class _Job:
    """One export under way."""

    folder: Path
    progress: Progress
    task: TaskID
    comparisons: list[ParityResult] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show ``name`` while it lasts, and keep its time."""
        self.progress.update(self.task, description=f"export: {name}")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)
        self.progress.advance(self.task)


def export_model(checkpoint_dir: Path, out: Path, console: Console | None = None) -> ExportResult:
    """Write each graph in every runtime's format, and let them pass the parity gate.

    Args:
        checkpoint_dir: see ``newshelf.nn.checkpoint``.
        out: replaced as a whole; left as it was on any error.
        console: where the progress is shown; standard error by default.

    Raises:
        WeightsError: the checkpoint cannot be loaded.
        SetupError: a graph is too large for one ONNX file.
        ParityError: a graph differs from the eager model, or does not run at all.
    """
    checkpoint = load_checkpoint(checkpoint_dir)
    todo = subjects(checkpoint)
    for subject in todo:
        check_size(subject.module, subject.graph.name)
    with directory_aside(out) as folder, _one_thread(), _progress(console) as progress:
        job = _Job(folder, progress, progress.add_task("export", total=3 * len(todo)))
        for subject in todo:
            _export(subject, job)
        for name in (SPEC_FILE, TOKENIZER):
            if (checkpoint_dir / name).exists():
                shutil.copyfile(checkpoint_dir / name, folder / name)
        write_version(folder, checkpoint.version)
        write_json(folder / PARITY, report(job.comparisons, checkpoint.version))
    return ExportResult(out, checkpoint.version, worst(job.comparisons), job.seconds)


def _export(subject: Subject, job: _Job) -> None:
    name = subject.graph.name
    with job.step(f"{name} torchscript"):
        write_torchscript(subject.module, subject.example, job.folder / f"{name}.pt")
    with job.step(f"{name} onnx"):
        path = job.folder / f"{name}.onnx"
        write_onnx(subject.module, subject.example, subject.graph, subject.axes, path)
        write_openvino(path, path.with_suffix(".xml"))
    with job.step(f"{name} parity"):
        runtimes = _runtimes(subject, job.folder)
        # Depthwise convolutions on a CPU take half the time in this format.
        subject.module.to(memory_format=torch.channels_last)
        for case in subject.cases():
            job.comparisons += check_case(subject, runtimes, case)


def _runtimes(subject: Subject, folder: Path) -> dict[str, Runtime]:
    """The runtimes of serving themselves, so that the gate covers their part too."""
    cpu = Device()
    return {kind: open_runtime(kind, folder, subject.graph, cpu, 1) for kind in _KINDS}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: torch's waiting threads take several times as long as the
    work itself where other processes want the cores too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _progress(console: Console | None) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console or Console(stderr=True), transient=True)
