"""The scores of source ``model`` by their formula, from the files of an index and a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from newshelf.files import read_json
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.serving.index import read_columns

NEAREST = 20
"""So many items stand for one that the index does not know."""
TEMPERATURE = 0.05
"""Of their shares."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Parts:
    """What scores are made of, by id."""

    looks: dict[str, float]
    """From vectors alone: the Siamese scorer, and the likeness to the history."""
    behaviour: dict[str, float]
    """Links and prior."""
    unseen: dict[str, float]
    """Links and prior of a product that looks like the item, but that nobody ever took."""


def parts_of_scores(
    checkpoint: Path,
    index: Path,
    history: Sequence[str],
    brought: Mapping[str, Sequence[float]] | None = None,
) -> Parts:
    """Of every item of the folder ``index``, after this history of its items.

    ``brought`` are embeddings ``(512,)`` of products that the index does not know, by id.
    """
    spec = read_json(index / "index.json")["blend"]
    arrays = load_file(index / "blend.safetensors")
    vectors = load_file(index / "vectors.safetensors")
    ids = read_columns(index)["id"]
    more = np.array(list((brought or {}).values()), dtype=np.float32).reshape(-1, 512)
    rows = np.concatenate([vectors["embeddings"], more])
    embeddings, everything = vectors["embeddings"].astype(float), rows.astype(float)
    links, neighbours = (_dense(arrays, name, len(ids)) for name in ("links", "neighbours"))
    weights, prior = spec["weights"], arrays["prior"].astype(float)
    past = [ids.index(item) for item in history]

    linked = links[past].sum(axis=0)
    alike = neighbours[past].sum(axis=0) @ links

    def total(direct: np.ndarray, shares: np.ndarray, prior: np.ndarray) -> np.ndarray:
        sums = {"direct": direct, "similar": shares @ linked, "likewise": shares @ alike}
        positive = {name: spec["floor"] + np.maximum(at, 0) for name, at in sums.items()}
        return np.asarray(prior + sum(weights[name] * np.log(positive[name]) for name in sums))

    untaken = np.bincount(arrays["links.indices"], minlength=len(ids)) == 0
    own = total(np.where(untaken, neighbours @ linked, linked), neighbours, prior)
    # An item is no neighbour of itself; a product that looks like it has it for the nearest.
    shares = _nearest(everything, embeddings)
    unseen = total(shares @ linked, shares, shares @ prior)

    away = (everything @ embeddings[past].T - 1) / spec["temperature"]
    looks = weights["content"] * np.log(np.exp(away).sum(axis=1))
    looks += weights["siamese"] * _siamese(checkpoint, rows, past)
    names = [*ids, *(brought or {})]
    return Parts(
        looks=dict(zip(names, looks.tolist(), strict=True)),
        behaviour=dict(zip(ids, own.tolist(), strict=True)),
        unseen=dict(zip(names, unseen.tolist(), strict=True)),
    )


def _siamese(checkpoint: Path, embeddings: np.ndarray, past: Sequence[int]) -> np.ndarray:
    """``(N,)``: the scorer's answers."""
    scorer = load_checkpoint(checkpoint).scorer
    assert scorer is not None
    rows = torch.from_numpy(embeddings)
    with torch.inference_mode():
        scores = scorer(rows[None, past], torch.ones(1, len(past), dtype=torch.bool), rows[None])
    return np.asarray(scores[0].numpy())


def _dense(arrays: Arrays, name: str, size: int) -> np.ndarray:
    """``(size, size)``."""
    matrix = np.zeros((size, size))
    rows = np.repeat(np.arange(size), np.diff(arrays[f"{name}.indptr"]))
    matrix[rows, arrays[f"{name}.indices"]] = arrays[f"{name}.values"]
    return matrix


def _nearest(rows: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """``(len(rows), N)``: the shares of the items nearest to each row."""
    shares = np.exp((rows @ embeddings.T - 1) / TEMPERATURE)
    shares[shares < np.sort(shares, axis=1)[:, [-NEAREST]]] = 0
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
