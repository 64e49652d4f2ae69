"""Features of a catalogue from the frozen towers, cached by content.

The keys are digests of a picture's bytes and of a text, so only new or changed products are
computed. Each combination of tower weights and input settings has its own cache file.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from newshelf.catalog.catalog import Catalog
from newshelf.errors import BadPicture, TooLarge, TrainingError
from newshelf.files import write_aside
from newshelf.nn.encoder import Encoder, Features, ImageTower, TextTower
from newshelf.nn.inputs import Tokenizer, attribute_row, decode_picture, prepare_pictures
from newshelf.nn.spec import ImageInput, TextInput

_BATCH = 32
"""Maximum number of inputs of all threads at once."""
_PICTURES = 4
"""Of a thread at once: the maps of more leave the caches, and each layer gets new memory."""
_SHOWN = 10
_SAVE_EVERY_S = 30.0
"""Maximum work that a killed run loses."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of the N products of a catalogue, in its order.

    ``image (N, F_i)`` and ``text (N, F_t)`` float32, zeros if absent;
    ``image_present`` and ``text_present (N,)`` bool; ``attributes (N, 9)`` int64.
    """

    image: Tensor
    image_present: Tensor
    text: Tensor
    text_present: Tensor
    attributes: Tensor
    inner: Tensor | None = None
    """``(N, inner)`` float32 of the image tower's inner stages; None if it does not return them."""

    def __len__(self) -> int:
        return len(self.attributes)

    def rows(self, index: Tensor) -> tuple[Features, Tensor]:
        """Return the inputs of ``Encoder.fuse`` for the rows ``index``."""
        features = (
            self.image[index],
            self.image_present[index],
            self.text[index],
            self.text_present[index],
        )
        return features, self.attributes[index]

    def content(self) -> np.ndarray:
        """Return ``(N, F_i + F_t)`` float32: each modality of unit length, zeros if absent."""
        parts = [nn.functional.normalize(part, dim=1) for part in (self.image, self.text)]
        return torch.cat(parts, dim=1).numpy()


def feature_table(
    catalog: Catalog,
    encoder: Encoder,
    tokenizer: Tokenizer | None,
    cache: Path,
    console: Console,
) -> FeatureTable:
    """Return the features of all products; computes those that ``cache`` lacks.

    A modality without a tower is absent, of width 1.

    Raises:
        TrainingError: a tower's features are not finite.
    """
    rows = len(catalog.items)
    spec = encoder.spec
    image = text = torch.zeros(rows, 1), torch.zeros(rows, dtype=torch.bool)
    if spec.image is not None and encoder.image_tower is not None:
        image = _image_features(catalog, spec.image, encoder.image_tower, cache, console)
    if spec.text is not None and encoder.text_tower is not None and tokenizer is not None:
        text = _text_features(catalog, encoder.text_tower, tokenizer, spec.text, cache, console)
    attributes = [attribute_row(product, spec.attributes) for product in catalog.products()]
    (pooled, present), inner = image, None
    if spec.image is not None and spec.image.inner:
        pooled, inner = pooled[:, : -spec.image.inner], pooled[:, -spec.image.inner :]
    return FeatureTable(pooled, present, *text, torch.tensor(attributes, dtype=torch.int64), inner)


def _image_features(
    catalog: Catalog, spec: ImageInput, tower: ImageTower, cache: Path, console: Console
) -> tuple[Tensor, Tensor]:
    """Return ``(N, features)`` float32, and a ``(N,)`` mask of readable pictures."""
    paths = [catalog.image_path(row) for row in range(len(catalog.items))]
    known = {row: path for row, path in enumerate(paths) if path is not None}
    damaged: list[str] = []
    keys: dict[int, str] = {}
    for row, path in known.items():
        try:
            keys[row] = _digest(path.read_bytes())
        except OSError as error:
            damaged.append(f"{path.name}: {error.strerror}")
    by_key = {key: known[row] for row, key in keys.items()}

    @torch.inference_mode()
    def compute(missing: Sequence[str]) -> dict[str, Tensor]:
        pictures = {}
        for key in missing:
            try:
                pictures[key] = decode_picture(by_key[key].read_bytes(), spec)
            except (BadPicture, TooLarge) as error:
                damaged.append(f"{by_key[key].name}: {error.message}")
            except OSError as error:
                damaged.append(f"{by_key[key].name}: {error.strerror}")
        if not pictures:
            return {}
        batch = torch.from_numpy(prepare_pictures(list(pictures.values()), spec))
        features = tower(batch.to(memory_format=torch.channels_last))
        _refuse_not_finite("[image]", features, [by_key[key].name for key in pictures])
        return dict(zip(pictures, features, strict=True))

    store = _Store(cache, tower_identity(spec, tower))
    # Depthwise convolutions on a CPU take half the time in this format.
    tower.to(memory_format=torch.channels_last)
    found = store.fill(sorted(by_key), compute, "pictures", console, _PICTURES)
    for line in sorted(damaged)[:_SHOWN]:
        console.print(f"[yellow]left out a picture[/] {line}")
    if len(damaged) > _SHOWN:
        console.print(f"[yellow]and {len(damaged) - _SHOWN} more pictures[/]")
    return _table(keys, found, len(paths), spec.features)


def _text_features(
    catalog: Catalog,
    tower: TextTower,
    tokenizer: Tokenizer,
    spec: TextInput,
    cache: Path,
    console: Console,
) -> tuple[Tensor, Tensor]:
    """Return ``(N, features)`` float32, and a ``(N,)`` mask of readable texts."""
    texts = [product.text() for product in catalog.products()]
    readable = [
        bool(text and ids) for text, ids in zip(texts, tokenizer.tokens(texts), strict=True)
    ]
    keys = {row: _digest(texts[row].encode()) for row in range(len(texts)) if readable[row]}
    by_key = {key: texts[row] for row, key in keys.items()}

    @torch.inference_mode()
    def compute(missing: Sequence[str]) -> dict[str, Tensor]:
        ids, mask = tokenizer.batch([by_key[key] for key in missing])
        features = tower(torch.from_numpy(ids), torch.from_numpy(mask))
        _refuse_not_finite("[text]", features, [repr(by_key[key]) for key in missing])
        return dict(zip(missing, features, strict=True))

    store = _Store(cache, tower_identity(spec, tower, tokenizer.digest))
    # Texts of similar length share a batch, which reduces padding.
    ordered = sorted(by_key, key=lambda key: (len(by_key[key]), key))
    found = store.fill(ordered, compute, "texts", console)
    return _table(keys, found, len(texts), spec.features)


class _Store:
    """Feature rows by key, in one safetensors file per tower identity."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._path = folder / f"{identity}.safetensors"

    def fill(
        self,
        keys: Sequence[str],
        compute: Callable[[Sequence[str]], dict[str, Tensor]],
        label: str,
        console: Console,
        most: int = _BATCH,
    ) -> dict[str, Tensor]:
        """Return the rows of ``keys``; computes and saves those that are not on disk.

        Each of torch's threads computes ``most`` at once or fewer: it waits for no other one.
        """
        rows = self._read()
        missing = [key for key in keys if key not in rows]
        if not missing:
            return rows
        threads = torch.get_num_threads()
        size = max(1, min(most, _BATCH // threads))
        chunks = [missing[start : start + size] for start in range(0, len(missing), size)]
        label = f"features of {len(missing)} {label}"
        saved = time.monotonic()
        pool = ThreadPoolExecutor(min(threads, _BATCH), "", torch.set_num_threads, (1,))
        try:
            made = pool.map(compute, chunks)
            for found in track(made, label, len(chunks), console=console):
                rows |= found
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    self._write(rows)
                    saved = time.monotonic()
        finally:
            # Also when interrupted, after which what waits is not computed.
            pool.shutdown(cancel_futures=True)
            # The pool's number became that of all threads.
            torch.set_num_threads(threads)
        self._write({key: rows[key] for key in keys if key in rows})
        return rows

    def _read(self) -> dict[str, Tensor]:
        if not self._path.exists():
            return {}
        with safe_open(self._path, framework="pt") as file:
            keys = json.loads(file.metadata()["keys"])
            return dict(zip(keys, file.get_tensor("rows"), strict=True))

    def _write(self, rows: dict[str, Tensor]) -> None:
        if not rows:
            return
        with write_aside(self._path) as aside:
            stacked = torch.stack(list(rows.values()))
            save_file({"rows": stacked}, aside, metadata={"keys": json.dumps(list(rows))})


def _table(
    keys: dict[int, str], found: dict[str, Tensor], rows: int, width: int
) -> tuple[Tensor, Tensor]:
    table = torch.zeros(rows, width)
    present = torch.zeros(rows, dtype=torch.bool)
    for row, key in keys.items():
        if key in found:
            table[row] = found[key]
            present[row] = True
    return table, present


def _refuse_not_finite(section: str, features: Tensor, names: Sequence[str]) -> None:
    """Raise on the first batch with features that are not finite, naming the product."""
    bad = ~torch.isfinite(features).all(dim=1)
    if bad.any():
        first = names[int(bad.nonzero()[0])]
        raise TrainingError(
            f"{section} the tower's features of {first} are not finite ({int(bad.sum())} of "
            f"{len(names)} in the batch): if it is all of them, the tower's weights are damaged; "
            "otherwise remove the named product from the catalogue"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]


def tower_identity(spec: BaseModel, tower: nn.Module, tokenizer: str = "") -> str:
    """Return a digest of input settings, weights and tokenizer."""
    plain = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.sha256((plain + tokenizer).encode())
    for name, tensor in tower.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
