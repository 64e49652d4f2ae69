"""The parity gate: an exported graph must compute what the eager model computes.

The inputs are synthetic, the same on every machine, and cover every combination of absent
modalities and each dynamic size.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.graphs import Axes
from newshelf.errors import ParityError
from newshelf.nn.inputs import prepare_pictures
from newshelf.nn.spec import (
    ATTRIBUTE_COLUMNS,
    AttributeInput,
    EncoderSpec,
    ImageInput,
    ScorerSpec,
    TextInput,
)
from newshelf.serving.runtimes.base import Graph, Runtime

_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Batch:
    """The inputs that each row of a batch has."""

    size: int
    pictures: Sequence[int]
    texts: Sequence[int]
    attributes: Sequence[int]
    tokens: int
    """Length of the longest text, with its special tokens."""


def encoder_inputs(spec: EncoderSpec, batch: Batch, seed: int = 0) -> tuple[Tensor, ...]:
    """The encoder's six inputs, in the order of ``Encoder.forward``.

    Where no row has a picture or a text, one padding entry of row ``batch.size`` stands
    in, as in serving.
    """
    generator = torch.Generator().manual_seed(seed)
    pictures = list(batch.pictures) or [batch.size]
    texts = list(batch.texts) or [batch.size]
    image = _pictures(spec.image, len(pictures), generator)
    input_ids, attention_mask = _texts(spec.text, len(texts), batch.tokens, generator)
    attributes = torch.zeros((batch.size, len(ATTRIBUTE_COLUMNS)), dtype=torch.int64)
    rows = list(batch.attributes)
    attributes[rows] = _attributes(spec.attributes, len(rows), generator)
    return (
        image,
        torch.tensor(pictures),
        input_ids,
        attention_mask,
        torch.tensor(texts),
        attributes,
    )


def history_inputs(
    shape: tuple[int, int, int], width: int, *, empty: bool, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """``history (B, H, width)``, ``history_mask (B, H)`` and ``candidates (B, C, width)``.

    Args:
        shape: ``B, H, C``.
        width: of the vectors.
        empty: whether the last row's history is masked as a whole.
        seed: equal seeds give equal inputs.
    """
    batch, length, count = shape
    generator = torch.Generator().manual_seed(seed)
    history = unit_vectors(batch * length, width, generator).view(batch, length, width)
    candidates = unit_vectors(batch * count, width, generator).view(batch, count, width)
    kept = torch.randint(1, length + 1, (batch,), generator=generator)
    kept[0] = length
    if empty:
        kept[-1] = 0
    mask = torch.arange(length) < kept.unsqueeze(1)
    return history, mask, candidates


def unit_vectors(count: int, width: int, generator: torch.Generator) -> Tensor:
    """``(count, width)`` float32 of unit length."""
    return F.normalize(torch.randn((count, width), generator=generator), dim=-1)


def _pictures(spec: ImageInput | None, count: int, generator: torch.Generator) -> Tensor:
    if spec is None:
        return torch.zeros((count, 3, 1, 1))
    drawn = [_picture(spec.size, generator).permute(1, 2, 0).numpy() for _ in range(count)]
    return torch.from_numpy(prepare_pictures(drawn, spec))


def _picture(size: int, generator: torch.Generator) -> Tensor:
    """A shaded disc with a fine texture before a soft background; ``(3, size, size)`` uint8."""
    draw = torch.rand(14, generator=generator)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    background = (0.75 + 0.25 * draw[0:3, None, None]) - 0.15 * (x * draw[3] + y * draw[4])
    radius = 0.3 + 0.5 * draw[5]
    distance = ((x - draw[6] + 0.5) ** 2 + (y - draw[7] + 0.5) ** 2).sqrt()
    shade = 0.8 + 0.2 * torch.sin(math.pi * (4 + 20 * draw[8]) * (x + y * draw[9]))
    thing = draw[10:13, None, None] * shade * (1.2 - distance)
    edge = torch.sigmoid((radius - distance) * size / 4)
    grain = 0.02 * torch.randn((3, size, size), generator=generator)
    pixels = background * (1 - edge) + thing * edge + grain
    return (pixels.clamp(0, 1) * 255).to(torch.uint8)


def _texts(
    spec: TextInput | None, count: int, tokens: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random tokens; the first text is the longest, the others end anywhere."""
    if spec is None:
        one = torch.ones((count, 1), dtype=torch.int64)
        return one, one
    vocabulary = int(str(spec.architecture["vocab_size"]))
    lengths = torch.randint(
        min(tokens, _SPECIAL_TOKENS), tokens + 1, (count, 1), generator=generator
    )
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths).to(torch.int64)
    ids = torch.randint(0, vocabulary, (count, tokens), generator=generator)
    return torch.where(mask > 0, ids, spec.pad_token_id), mask


def _attributes(spec: AttributeInput, count: int, generator: torch.Generator) -> Tensor:
    """Any bucket, and 0 (absent) now and then."""
    columns = len(ATTRIBUTE_COLUMNS)
    values = torch.randint(1, spec.buckets, (count, columns), generator=generator)
    absent = torch.rand((count, columns), generator=generator) < 0.25  # noqa: PLR2004
    absent[:, 0] = False
    return values.masked_fill(absent, 0)


BATCH_SIZES = (1, 2, 32)
CANDIDATES = (1, 7, 200)
_ONE_TOKEN = 3
"""One token between the two special ones."""

_Rows = tuple[Sequence[int], Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class ParityCase:
    """One call of a graph."""

    name: str
    inputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Subject:
    """One graph to be."""

    graph: Graph
    module: nn.Module
    example: tuple[Tensor, ...]
    """Sizes of dynamic dimensions differ from each other and from 1."""
    axes: Sequence[Axes]
    cases: Callable[[], Iterator[ParityCase]]
    unbounded: frozenset[str]
    """Outputs without a natural scale, unlike unit vectors and weights that sum to 1."""


def encoder_cases(spec: EncoderSpec) -> Iterator[ParityCase]:
    """Every batch size with every modality missing, and every text length.

    They are made one by one: a batch of 32 pictures is 19 MB.
    """
    for seed, (name, batch) in enumerate(_batches(spec)):
        yield ParityCase(name, encoder_inputs(spec, batch, seed))


def projector_cases(embedding: int) -> Iterator[ParityCase]:
    """Each batch size, and a whole small index."""
    for count in (*BATCH_SIZES, 200):
        vectors = unit_vectors(count, embedding, torch.Generator().manual_seed(count))
        yield ParityCase(f"{count} embeddings", (vectors,))


def scorer_cases(spec: ScorerSpec) -> Iterator[ParityCase]:
    """Short and full histories, padded ones, wholly masked ones, few and many candidates."""
    lengths = sorted({1, min(3, spec.max_history), spec.max_history})
    for seed, shape in enumerate(product(BATCH_SIZES, lengths, CANDIDATES)):
        batch, length, count = shape
        name = f"batch {batch}, history {length}, {count} candidates"
        yield ParityCase(name, history_inputs(shape, spec.width, empty=batch > 1, seed=seed))
        if batch == 1:
            inputs = history_inputs(shape, spec.width, empty=True, seed=seed)
            yield ParityCase(f"{name}, all masked", inputs)


def _batches(spec: EncoderSpec) -> Iterator[tuple[str, Batch]]:
    longest = spec.text.max_tokens if spec.text else 1
    # Longest first, so that the turns below give the largest batch the longest texts.
    lengths = sorted({min(tokens, longest) for tokens in (_ONE_TOKEN, 7, 33, longest)})[::-1]
    turn = 0
    for size in BATCH_SIZES:
        for name, rows in _presences(size, spec).items():
            tokens = lengths[turn % len(lengths)]
            turn += 1
            yield _named(f"batch {size}, {name}", Batch(size, *rows, tokens=tokens), spec)
    everything = range(2)
    for tokens in lengths if spec.text else ():
        batch = Batch(2, (0,), everything, everything, tokens)
        yield _named("batch 2, each text length", batch, spec)


def _presences(size: int, spec: EncoderSpec) -> dict[str, _Rows]:
    """For each case the rows that have a picture, a text, and attributes."""
    every: Sequence[int] = range(size)
    found: dict[str, _Rows] = {
        "complete": (every, every, every),
        # A few pictures do: they are what takes the time.
        "no attributes": (every[:8], every, ()),
        "nothing at all": ((), (), ()),
        # Out of order on purpose: a row's place is said by the row numbers alone.
        "mixed": (every[::-2][:8], every[1::3], every[::4]),
    }
    if spec.image:
        found["no picture"] = ((), every, every)
    if spec.text:
        found["no text"] = (every[:8], (), every)
    return found


def _named(name: str, batch: Batch, spec: EncoderSpec) -> tuple[str, Batch]:
    if spec.text and batch.texts:
        name = f"{name}, {batch.tokens} tokens"
    return name, batch


TOLERANCE = 1e-4
"""Largest absolute difference of a float32 output; see ``limit_of`` for unbounded ones."""

_LIBRARIES = {
    "onnx": "onnx",
    "onnxruntime": "onnxruntime-gpu",
    "openvino": "openvino",
    "torch": "torch",
}


@dataclass(frozen=True)
class ParityResult:
    """One output of one graph in one case."""

    graph: str
    runtime: str
    case: str
    output: str
    max_abs_diff: float
    limit: float
    passed: bool


def check_case(
    subject: Subject, runtimes: Mapping[str, Runtime], case: ParityCase
) -> list[ParityResult]:
    """Run the eager module once and every runtime once on the same inputs.

    Raises:
        ParityError: naming graph, runtime, case and difference of the first that is
            farther off than its limit, or whose output has another shape.
    """
    with torch.inference_mode():
        result = subject.module(*case.inputs)
    expected = (result,) if isinstance(result, Tensor) else result
    named = dict(zip(subject.graph.outputs, expected, strict=True))
    inputs = dict(zip(subject.graph.inputs, case.inputs, strict=True))

    def run(kind: str) -> dict[str, Tensor]:
        return _run(runtimes[kind], inputs, f"{subject.graph.name} ({kind}), {case.name}")

    comparisons = []
    with ThreadPoolExecutor(len(runtimes)) as pool:
        # At once, since each computes on one thread.
        answers = list(pool.map(run, runtimes))
    for kind, actual in zip(runtimes, answers, strict=True):
        for output, tensor in named.items():
            where = f"{subject.graph.name} ({kind}), {case.name}: {output}"
            difference = _difference(tensor, actual[output], where)
            limit = limit_of(tensor, unbounded=output in subject.unbounded)
            # Written so that a NaN fails.
            passed = difference <= limit
            if not passed:
                raise ParityError(
                    f"{where} is off by {difference:.3g}, and {limit:.3g} is allowed. Nothing was "
                    "exported: the model does something that the exporter does not reproduce"
                )
            comparisons.append(
                ParityResult(subject.graph.name, kind, case.name, output, difference, limit, passed)
            )
    return comparisons


def limit_of(expected: Tensor, *, unbounded: bool) -> float:
    """Return the tolerance of an output.

    ``TOLERANCE`` for unit vectors and attention, whose numbers are at most 1. Logits and
    scores have no such bound, and float32 keeps a relative precision: there it is
    ``TOLERANCE`` times the largest absolute value of the eager output, if that is above 1.
    """
    if not unbounded or expected.numel() == 0:
        return TOLERANCE
    return TOLERANCE * max(1.0, float(expected.abs().max()))


def report(comparisons: Sequence[ParityResult], model_version: str) -> dict[str, object]:
    """``parity.json``: what was compared, how far apart it was, and with which libraries."""
    return {
        "format": 1,
        "model_version": model_version,
        "passed": all(comparison.passed for comparison in comparisons),
        "tolerance": TOLERANCE,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(package) for name, package in _LIBRARIES.items()},
        "worst": worst(comparisons),
        "cases": [asdict(comparison) for comparison in comparisons],
    }


def worst(comparisons: Iterable[ParityResult]) -> dict[str, float]:
    """The largest difference of each graph in each runtime, as ``"encoder onnxruntime"``."""
    found: dict[str, float] = {}
    for comparison in comparisons:
        key = f"{comparison.graph} {comparison.runtime}"
        found[key] = max(found.get(key, 0.0), comparison.max_abs_diff)
    return found


def _run(runtime: Runtime, inputs: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    try:
        return {name: torch.from_numpy(array) for name, array in runtime.run(inputs).items()}
    except Exception as error:
        # Both runtimes raise bare classes of their own; a baked-in size ends here.
        raise ParityError(f"{where} does not run: {error}. Nothing was exported") from error


def _difference(expected: Tensor, actual: Tensor, where: str) -> float:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise ParityError(
            f"{where} is {tuple(actual.shape)} {actual.dtype} where the model gives "
            f"{tuple(expected.shape)} {expected.dtype}. Nothing was exported: a dimension was "
            "taken as a constant"
        )
    if expected.numel() == 0:
        return 0.0
    return float((expected - actual).abs().max())
