"""A trained model on disk: weights, spec, tokenizer and the catalogue's embeddings.

::

    model.json                ModelSpec
    encoder.safetensors       every tower, fusion and heads
    scorer.safetensors        only with a scorer
    blend.safetensors         signals and their weights, unless there were too few cases
    tokenizer.json            only with a text tower
    embeddings.safetensors    ``embeddings`` (N, 512) float32
    ids.json                  the N product ids, in the same order
    training.json             losses, accuracies and duration of the run
    knowledge/                facts about the products (newshelf.attributes)

The version is the SHA-256 of spec, weights and tokenizer, cut to 12 hex digits.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from newshelf.errors import WeightsError
from newshelf.files import directory_aside, read_json, write_json
from newshelf.nn.blend import BLEND_FILE, Blend
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import SPEC_FILE, ModelSpec, read_spec

KNOWLEDGE_FOLDER = "knowledge"
_VERSIONED = (SPEC_FILE, "encoder.safetensors", "scorer.safetensors", BLEND_FILE, "tokenizer.json")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model, in ``eval`` mode on the CPU."""

    directory: Path
    version: str
    spec: ModelSpec
    encoder: Encoder
    scorer: SiameseScorer | None
    blend: Blend | None
    """None without a scorer, or with too few cases to fit the signals' weights."""

    def embeddings(self) -> tuple[list[str], Tensor]:
        """Return product ids, and their embeddings ``(N, 512)`` float32."""
        path = self.directory / "embeddings.safetensors"
        try:
            ids: list[str] = read_json(self.directory / "ids.json")
            rows = load_file(path)["embeddings"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WeightsError(f"{path} or its ids.json cannot be loaded: {error}") from error
        if len(ids) != len(rows):
            raise WeightsError(f"{path} has {len(rows)} rows, its ids.json {len(ids)}")
        return ids, rows


def save_checkpoint(
    out: Path,
    *,
    spec: ModelSpec,
    encoder: Encoder,
    scorer: SiameseScorer | None,
    blend: Blend | None,
    tokenizer_json: str | None,
    ids: Sequence[str],
    embeddings: Tensor,
    training: Mapping[str, object],
) -> None:
    """Write the checkpoint atomically, replacing ``out``."""
    with directory_aside(out) as folder:
        write_json(folder / SPEC_FILE, spec.model_dump(mode="json"))
        _save(encoder, folder / "encoder.safetensors")
        if scorer is not None:
            _save(scorer, folder / "scorer.safetensors")
        if blend is not None:
            blend.save(folder)
        if tokenizer_json is not None:
            (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        write_json(folder / "ids.json", list(ids))
        write_json(folder / "training.json", dict(training))
        save_file({"embeddings": embeddings.contiguous()}, folder / "embeddings.safetensors")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Return the model in ``folder``."""
    spec = read_spec(folder)
    try:
        encoder = Encoder(spec.encoder)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{SPEC_FILE} names a tower that cannot be built: {error}") from error
    _load(encoder, folder / "encoder.safetensors")
    scorer = None
    if spec.scorer is not None:
        scorer = SiameseScorer(spec.scorer, spec.encoder.embedding)
        _load(scorer, folder / "scorer.safetensors")
    blend = Blend.load(folder, spec.blend) if spec.blend is not None else None
    return Checkpoint(folder, _version(folder), spec, encoder, scorer, blend)


def _save(module: nn.Module, path: Path) -> None:
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)


def _load(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path} cannot be loaded: {error}") from error
    module.eval().requires_grad_(False)


def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in _VERSIONED:
        path = folder / name
        if path.exists():
            digest.update(name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
