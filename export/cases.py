"""The inputs on which every exported graph must agree with the eager model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from export.inputs import Batch, encoder_inputs, history_inputs, unit_vectors
from newshelf.nn.spec import EncoderSpec, ScorerSpec

__all__ = ["BATCH_SIZES", "Case", "encoder_cases", "projector_cases", "scorer_cases"]

BATCH_SIZES = (1, 2, 32)
CANDIDATES = (1, 7, 200)
_ONE_TOKEN = 3
"""One token between the two special ones."""

_Rows = tuple[Sequence[int], Sequence[int], Sequence[int]]


@dataclass(frozen=True)
class Case:
    """One call of a graph."""

    name: str
    inputs: tuple[Tensor, ...]


def encoder_cases(spec: EncoderSpec) -> Iterator[Case]:
    """Every batch size with every modality missing, and every text length.

    They are made one by one: a batch of 32 pictures is 19 MB.
    """
    for seed, (name, batch) in enumerate(_batches(spec)):
        yield Case(name, encoder_inputs(spec, batch, seed))


def projector_cases(embedding: int) -> Iterator[Case]:
    """Each batch size, and a whole small index."""
    for count in (*BATCH_SIZES, 200):
        vectors = unit_vectors(count, embedding, torch.Generator().manual_seed(count))
        yield Case(f"{count} embeddings", (vectors,))


def scorer_cases(spec: ScorerSpec) -> Iterator[Case]:
    """Short and full histories, padded ones, wholly masked ones, few and many candidates."""
    lengths = sorted({1, min(3, spec.max_history), spec.max_history})
    for seed, shape in enumerate(product(BATCH_SIZES, lengths, CANDIDATES)):
        batch, length, count = shape
        name = f"batch {batch}, history {length}, {count} candidates"
        yield Case(name, history_inputs(shape, spec.width, empty=batch > 1, seed=seed))
        if batch == 1:
            inputs = history_inputs(shape, spec.width, empty=True, seed=seed)
            yield Case(f"{name}, all masked", inputs)


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
