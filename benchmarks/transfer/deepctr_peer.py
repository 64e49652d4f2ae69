"""Trains DeepCTR-Torch's xDeepFM.

Run by the interpreter of ``benchmarks/requirements.txt``, which knows nothing of Newshelf::

    python deepctr_peer.py GIVEN.npz FOUND.npz

GIVEN holds ``settings`` (JSON) and, for ``train`` and ``test``, ``…_categories (N, C)``,
``…_history (N, L)`` with 0 for an empty place, and ``train_label (N,)``. FOUND receives the
test rows' ``probability (N,)``, the trained ``weight/NAME`` and ``about`` (JSON).
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

# On import, the library asks the network for a newer version, by a package that it does not
# declare.
sys.modules["requests"] = ModuleType("requests")
from deepctr_torch.inputs import (  # type: ignore[import-not-found]  # noqa: E402
    SparseFeat,
    VarLenSparseFeat,
)
from deepctr_torch.models import xDeepFM  # type: ignore[import-not-found]  # noqa: E402


def main(given: Path, found: Path) -> None:
    """Train, predict and write."""
    torch.set_num_threads(1)
    with np.load(given) as file:
        arrays = dict(file)
    settings = json.loads(str(arrays["settings"]))
    model = _model(settings, arrays["train_history"].shape[1])
    model.compile(
        torch.optim.Adam(model.parameters(), lr=settings["learning_rate"]), "binary_crossentropy"
    )
    start = time.perf_counter()
    model.fit(
        _inputs(arrays, "train", settings),
        arrays["train_label"],
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    probability = model.predict(_inputs(arrays, "test", settings), 4096).squeeze(1)
    about = {
        "seconds": seconds,
        "versions": {name: version(name) for name in ("deepctr-torch", "torch", "numpy")},
    }
    weights = {f"weight/{name}": value.numpy() for name, value in model.state_dict().items()}
    np.savez(found, probability=probability, about=np.array(json.dumps(about)), **weights)


def _model(settings: dict[str, Any], history: int) -> Any:
    width = settings["width"]
    fields = [
        SparseFeat(name, size, embedding_dim=width)
        for name, size in zip(settings["names"], settings["sizes"], strict=True)
    ]
    # A table of its own: if two fields share one, the library counts one field too few.
    items = SparseFeat("history", settings["history_size"], embedding_dim=width)
    fields.append(VarLenSparseFeat(items, maxlen=history, combiner="mean"))
    model = xDeepFM(
        fields,
        fields,
        dnn_hidden_units=settings["deep"],
        cin_layer_size=settings["cin"],
        cin_activation=settings["cin_activation"],
        l2_reg_linear=0,
        l2_reg_embedding=0,
        init_std=settings["init_std"],
        seed=settings["seed"],
    )
    for layer in model.dnn.linears:
        # ``init_std`` also sets its deep layers; torch's default is wanted.
        layer.reset_parameters()
    return model


def _inputs(
    arrays: dict[str, np.ndarray], part: str, settings: dict[str, Any]
) -> dict[str, np.ndarray]:
    columns = dict(zip(settings["names"], arrays[f"{part}_categories"].T, strict=True))
    return {**columns, "history": arrays[f"{part}_history"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
