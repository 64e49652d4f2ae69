"""What is exported of a checkpoint: each module with its names, example and test cases."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.cases import Case, encoder_cases, projector_cases, scorer_cases
from export.inputs import Batch, encoder_inputs, history_inputs, unit_vectors
from export.onnx_graph import Axes
from newshelf.nn.checkpoint import Checkpoint
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import ScorerSpec
from newshelf.serving.runtimes import Graph, encoder_graph, projector_graph, scorer_graph

__all__ = ["Subject", "subjects"]


@dataclass(frozen=True)
class Subject:
    """One graph to be."""

    graph: Graph
    module: nn.Module
    example: tuple[Tensor, ...]
    """Sizes of dynamic dimensions differ from each other and from 1."""
    axes: Sequence[Axes]
    cases: Callable[[], Iterator[Case]]
    unbounded: frozenset[str]
    """Outputs without a natural scale, unlike unit vectors and weights that sum to 1."""


def subjects(checkpoint: Checkpoint) -> list[Subject]:
    """Encoder, projector and scorer; the encoder alone without a scorer."""
    found = [_encoder(checkpoint.encoder)]
    if checkpoint.scorer is not None:
        found.append(_projector(checkpoint.scorer, checkpoint.spec.encoder.embedding))
        found.append(_scorer(checkpoint.scorer, checkpoint.scorer.spec))
    return found


def _encoder(encoder: Encoder) -> Subject:
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
