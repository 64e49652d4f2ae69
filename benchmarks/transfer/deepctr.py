"""The peer of xDeepFM: runs in its own environment; its weights load into our network."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from benchmarks.environments import required_python
from benchmarks.methods.ctr.fields import FieldTable
from benchmarks.methods.ctr.impressions import Impressions
from benchmarks.methods.ctr.xdeepfm import XDeepFM, XDeepFMSettings
from newshelf.errors import SettingsError

_SCRIPT = Path(__file__).with_name("deepctr_peer.py")
_REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
_VARIABLE = "NEWSHELF_PEERS"
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class PeerResult:
    """Predictions and weights of the peer."""

    probability: npt.NDArray[np.float64]
    """``(N,)``, of the test rows."""
    weights: dict[str, npt.NDArray[np.float32]]
    versions: dict[str, str]
    seconds: float
    """Duration of its training."""


def peer_python(work: Path, console: Console) -> Path:
    """Return the interpreter with the peer; see ``required_python``."""
    return required_python(_VARIABLE, work / "peers", _REQUIREMENTS, console)


def run_peer(
    python: Path,
    work: Path,
    table: FieldTable,
    train: Impressions,
    test: Impressions,
    settings: XDeepFMSettings,
    seed: int,
) -> PeerResult:
    """Train DeepCTR-Torch's xDeepFM on the same rows with the same settings.

    ``python`` has ``benchmarks/requirements.txt`` installed; ``work`` is the folder of the two
    files that are exchanged. The peer has no dense fields.

    Raises:
        SettingsError: the script failed; with the end of its output.
    """
    work.mkdir(parents=True, exist_ok=True)
    given, found = work / "given.npz", work / "found.npz"
    categories = [field for field in table.fields if field.kind == "category"]
    shape = {
        "names": [field.name for field in categories],
        "sizes": [field.size for field in categories],
        "history_size": next(field.size for field in table.fields if field.kind == "bag"),
        "seed": seed,
        **{
            name: getattr(settings, name)
            for name in (
                "width",
                "cin",
                "cin_activation",
                "deep",
                "init_std",
                "learning_rate",
                "batch_size",
                "epochs",
            )
        },
    }
    arrays = {"settings": np.array(json.dumps(shape)), "train_label": train.label}
    for part, rows in (("train", train), ("test", test)):
        inputs = table.inputs(rows)
        arrays[f"{part}_categories"] = inputs.categories.numpy()
        arrays[f"{part}_history"] = inputs.bags[:, 0].numpy()
    np.savez(given, **arrays)  # type: ignore[arg-type]
    done = subprocess.run(
        [str(python), "-I", str(_SCRIPT), str(given), str(found)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise SettingsError(
            f"the peer failed; is benchmarks/requirements.txt installed for {python}? "
            f"It said: {done.stderr.strip()[-500:]}"
        )
    return _read(found)


def _read(path: Path) -> PeerResult:
    with np.load(path) as file:
        about: dict[str, Any] = json.loads(str(file["about"]))
        weights = {
            name.removeprefix("weight/"): file[name]
            for name in file.files
            if name.startswith("weight/")
        }
        return PeerResult(file["probability"], weights, about["versions"], about["seconds"])


def twin(found: PeerResult, table: FieldTable, settings: XDeepFMSettings) -> XDeepFM:
    """Return our network with the peer's weights, in ``eval`` mode.

    Raises:
        KeyError, RuntimeError: the networks differ in shape.
    """
    model = XDeepFM(table.fields, settings).eval()
    state = {name: torch.from_numpy(value) for name, value in found.weights.items()}
    names = model.fields.names
    ours = {
        "bias": state["out.bias"],
        "fields.vectors.weight": _tables(state, "embedding_dict", names),
        "fields.weights.weight": _tables(state, "linear_model.embedding_dict", names),
        "cin_weight.weight": state["cin_linear.weight"],
        "deep_weight.weight": state["dnn_linear.weight"],
    }
    for number in range(len(settings.cin)):
        theirs = f"cin.conv1ds.{number}"
        ours[f"cin.layers.{number}.weight"] = state[f"{theirs}.weight"].squeeze(2)
        ours[f"cin.layers.{number}.bias"] = state[f"{theirs}.bias"]
    for number in range(len(settings.deep)):
        for part in ("weight", "bias"):
            # An activation follows each of our layers.
            ours[f"deep.{2 * number}.{part}"] = state[f"dnn.linears.{number}.{part}"]
    starts = {name: value for name, value in model.state_dict().items() if "starts" in name}
    model.load_state_dict({**ours, **starts})
    return model


def _tables(state: dict[str, torch.Tensor], prefix: str, names: tuple[str, ...]) -> torch.Tensor:
    return torch.cat([state[f"{prefix}.{name}.weight"] for name in names])
