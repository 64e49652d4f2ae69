"""The image tower after learning the types of fashion: trained once, then read from disk."""

import copy
import hashlib
import json
from collections import defaultdict
from time import monotonic

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.transfer.context import Context
from newshelf.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.files import write_aside
from newshelf.nn.spec import ImageInput
from newshelf.nn.towers import ImageTower
from newshelf.transfer.pictures import TowerSettings, read_pictures, tune_tower
from newshelf.transfer.run import Run

__all__ = ["SOURCE", "source_tower"]

SOURCE = TowerSettings(
    mode="last-stage",
    stage=-3,
    grids=(1, 3),
    size=128,
    epochs=3,
    batch_size=64,
    views=1,
    learning_rate=5e-4,
    thaw_epochs=0,
    l2_sp=1e-3,
    balance="none",
    validation=0.1,
)
_RICH = 30
"""Products that make a type of fashion worth learning."""
_PER_TYPE = 60
_PER_RELATIVE = 420
"""Of the types of the target's own kind, which are what matters here."""
_RELATIVES = "Jewellery"
_SEED = 0


def source_tower(context: Context, spec: ImageInput, tower: ImageTower) -> ImageTower:
    """A copy of ``tower``, tuned on fashion; kept under ``context.work`` by its settings."""
    chosen = [SOURCE.model_dump(mode="json"), _RICH, _PER_TYPE, _PER_RELATIVE, _SEED]
    key = hashlib.sha256(json.dumps([spec.architecture, *chosen]).encode()).hexdigest()[:16]
    path = context.work / "jewellery" / f"fashion-tower-{key}.safetensors"
    learner = copy.deepcopy(tower)
    if path.exists():
        learner.load_state_dict(load_file(path))
        return learner.eval()
    start = monotonic()
    catalog = context.catalog("fashion")
    kinds = [category_levels(kind) for kind in catalog.items["product_type"]]
    pictures = read_pictures(catalog, _draw(catalog), SOURCE.size, context.console)
    names = [kinds[row][-1] for row in pictures.rows.tolist()]
    classes = tuple(sorted(set(names)))
    target = torch.tensor([classes.index(name) for name in names])
    run = Run(_SEED, context.console)
    tuned = tune_tower("fashion types", learner, spec, pictures, target, classes, SOURCE, run)
    with write_aside(path) as aside:
        save_file({k: v.contiguous() for k, v in tuned.tower.state_dict().items()}, aside)
    context.console.print(
        f"tuned the tower on {len(pictures)} pictures of {len(classes)} types of fashion in "
        f"{monotonic() - start:.0f} s; mean recall {max(tuned.history.validation):.1%}"
    )
    return tuned.tower


def _draw(catalog: Catalog) -> list[int]:
    """Some rows of each type, more of the target's relatives."""
    by_type: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, kind in enumerate(catalog.items["product_type"]):
        by_type[category_levels(kind)].append(row)
    generator = np.random.default_rng(_SEED)
    drawn: list[int] = []
    for kind, rows in sorted(by_type.items()):
        if kind and len(rows) >= _RICH:
            most = _PER_RELATIVE if _RELATIVES in kind else _PER_TYPE
            drawn.extend(generator.permutation(rows)[:most].tolist())
    return drawn
