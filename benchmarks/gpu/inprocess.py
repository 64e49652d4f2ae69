"""The encoder in process: decoder alone, graph alone, and the whole way from bytes to answers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import psutil
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.gpu.command import GpuContext, Way
from benchmarks.gpu.models import GpuModel
from benchmarks.gpu.pictures import jpegs
from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from newshelf.nn.gpu_inputs import decode_on_gpu
from newshelf.nn.spec import ATTRIBUTE_COLUMNS
from newshelf.serving.encoder_predictor import EncoderPredictor
from newshelf.serving.preprocess import Content
from newshelf.serving.runtimes.base import Array

_OK = 200
_MOST = 500
_SHARE = 0.8
_GIB = 1 << 30


def seconds_per_call(context: GpuContext, call: Callable[[], object]) -> float:
    """Return the median time of a call, until the device is idle; two warm-ups come first."""
    for _ in range(2):
        call()
    context.wait()
    taken: list[float] = []
    end = time.perf_counter() + context.scale.seconds
    while len(taken) < 3 or (time.perf_counter() < end and len(taken) < _MOST):  # noqa: PLR2004
        start = time.perf_counter()
        call()
        context.wait()
        taken.append(time.perf_counter() - start)
    return median(taken)


@dataclass(frozen=True)
class Rates:
    """Products per second at one batch size."""

    batch: int
    parts: dict[str, float]
    """Of each part alone, by its name."""
    whole: float
    """From the bytes of requests to those of answers."""

    def cells(self, way: str) -> list[str]:
        """Return a line of the table."""
        numbers = (self.whole, *self.parts.values())
        return [way, str(self.batch), *(f"{number:.0f}" for number in numbers)]


def answer_all(predictor: EncoderPredictor, model: GpuModel, batch: int) -> Callable[[], None]:
    """Return a call that answers ``batch`` different requests.

    Raises:
        BenchmarkError: when it is called, for an answer that is not 200.
    """
    rows = model.requests(batch)

    def call() -> None:
        for answer in predictor.predict(rows):
            if answer.status != _OK:
                raise BenchmarkError(f"an answer was {answer.status}: {answer.body[:300]!r}")

    return call


def graph_inputs(
    predictor: EncoderPredictor, images: Tensor | None, tokens: Sequence[Sequence[int]], rows: int
) -> dict[str, Array]:
    """Return the inputs of one forward of ``rows`` products, all with what is given."""
    nothing = Content("", (0,) * len(ATTRIBUTE_COLUMNS))
    pictured = range(rows) if images is not None else ()
    return predictor.encoder.builder.inputs([nothing] * rows, tokens, images, list(pictured))


def measure_rates(
    context: GpuContext, model: GpuModel, way: Way, predictor: EncoderPredictor
) -> list[Rates]:
    """Measure each batch size of the scale."""
    found = []
    for batch in context.scale.batches:
        calls = _parts(context, model, predictor, batch)
        parts = {name: batch / seconds_per_call(context, call) for name, call in calls.items()}
        whole = batch / seconds_per_call(context, answer_all(predictor, model, batch))
        found.append(Rates(batch, parts, whole))
        context.console.print(f"{' '.join(way)}, batch {batch}: {whole:.0f}/s", markup=False)
    return found


def _parts(
    context: GpuContext, model: GpuModel, predictor: EncoderPredictor, batch: int
) -> dict[str, Callable[[], object]]:
    """Return a call of each part alone, by its name."""
    device, image = context.torch_device, model.image
    run = predictor.encoder.runtime.run
    data = jpegs(batch)
    buffers = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in data]
    images, _ = decode_on_gpu(data, image, device)
    pictures = graph_inputs(predictor, images, [[]] * batch, batch)
    calls: dict[str, Callable[[], object]] = {
        "decoder": lambda: decode_jpeg(buffers, mode=ImageReadMode.RGB, device=device),
        "decoder, crop and resize": lambda: decode_on_gpu(data, image, device),
    }
    if model.spec.encoder.text is None:
        return {**calls, "graph": lambda: run(pictures)}
    tokens = [[2, *range(10, 10 + 4 + at % 8), 3] for at in range(batch)]
    texts = graph_inputs(predictor, None, tokens, batch)
    calls["graph, pictures alone"] = lambda: run(pictures)
    calls["graph, texts alone"] = lambda: run(texts)
    return calls


def best_rates(rates: Sequence[Rates]) -> Rates:
    """Return those of the batch size with the most products per second."""
    return max(rates, key=lambda one: one.whole)


def run_encoder(context: GpuContext) -> TaskResult:
    """Compare the encoder of pictures with its decoder and its graph."""
    return _compare(context, "encoder", "Encoder in process: pictures", text=False)


def run_product(context: GpuContext) -> TaskResult:
    """Compare the encoder of pictures and texts with its towers."""
    return _compare(context, "product", "Encoder in process: pictures and texts", text=True)


def _compare(context: GpuContext, task: str, title: str, *, text: bool) -> TaskResult:
    model = context.model(text=text)
    rows: list[Row] = []
    goals: list[Goal] = []
    table: list[list[str]] = []
    notes: list[str] = []
    header: tuple[str, ...] = ()
    for way in context.ways:
        before = used_bytes(context)
        predictor = model.load(context.device, *way, batch=max(context.scale.batches))
        loaded = used_bytes(context)
        rates = measure_rates(context, model, way, predictor)
        name, best = " ".join(way), best_rates(rates)
        measure = f"products/s, {name}, batch {best.batch}"
        # The towers are what the answer to a product is compared with.
        parts = [part for part in best.parts if not text or part.startswith("graph")]
        parts = [part for part in parts if part != "decoder, crop and resize"]
        slowest = min(parts, key=lambda part: best.parts[part])
        rows.append(Row(measure, "in process", [best.whole]))
        rows += [Row(measure, part, [best.parts[part]], part == slowest) for part in best.parts]
        goals.append(Goal(measure, _SHARE, "times", method="in process"))
        table += [one.cells(name) for one in rates]
        notes.append(
            f"{name}: {(loaded - before) / _GIB:.2f} GiB of memory after the warm-up, "
            f"{(used_bytes(context) - before) / _GIB:.2f} GiB after the largest batch"
        )
        header = ("runtime", "batch", "in process", *best.parts)
    return TaskResult(
        task=task,
        title=title,
        protocol=_protocol(context, text=text),
        rows=rows,
        goals=goals,
        notes=notes,
        details=markdown_table(header, "l" + "r" * (len(header) - 1), table),
        percent=False,
    )


def _protocol(context: GpuContext, *, text: bool) -> str:
    towers = f"{context.scale.image}{' and a BERT' if text else ''}"
    return (
        f"JPEGs of 400 × 300 pixels, all different, to a predictor with {towers} in one process: "
        "medians of calls until the GPU is idle. The whole way is from the bytes of the requests "
        "to those of the answers. Each part alone has its inputs where the whole has them."
    )


def used_bytes(context: GpuContext) -> int:
    """Return the GPU's memory in use, by all processes; without a GPU, this process's."""
    if context.device.kind == "cpu":
        return int(psutil.Process().memory_info().rss)
    free, total = torch.cuda.mem_get_info(context.device.index)
    return int(total - free)
