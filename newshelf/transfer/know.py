"""What a training writes down about the products: columns, words, and the encoder's heads."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from newshelf.catalog import Catalog
from newshelf.config import Settings
from newshelf.knowledge.build import Knowledge, build_knowledge
from newshelf.knowledge.encoder_heads import encoder_readings
from newshelf.knowledge.tagger import TitleTagger
from newshelf.knowledge.tagger_file import tagger_from_titles
from newshelf.nn.spec import HeadName
from newshelf.transfer.build import Backbone
from newshelf.transfer.finetune import embed, held_out
from newshelf.transfer.hide import STATED_BY
from newshelf.transfer.labels import UNLABELLED, Categories, HeadLabels, few_shots

__all__ = ["trained_tagger", "write_knowledge"]


def trained_tagger(settings: Settings) -> TitleTagger | None:
    """The tagger of titles, from the spans that ``[knowledge] tagger_data`` names.

    Raises:
        CatalogError: the file is missing or has a bad line.
    """
    path = settings.knowledge.tagger_data
    return None if path is None else tagger_from_titles(path, settings.seed)


def write_knowledge(
    catalog: Catalog,
    backbone: Backbone,
    labels: dict[HeadName, HeadLabels],
    categories: Categories | None,
    settings: Settings,
    tagger: TitleTagger | None,
    out: Path,
) -> Knowledge:
    """Write what is known of every product into the folder ``out``.

    A head is asked without the columns that state its answer, and what it is sure of is
    measured on products that it did not learn from.

    Args:
        catalog: N products.
        backbone: fine-tuned.
        labels: of the heads.
        categories: None without product types.
        settings: seed and shots, to know which labels the heads have seen.
        tagger: for titles, where there is one.
        out: replaced as a whole.
    """
    stated = tuple(sorted({column for columns in STATED_BY.values() for column in columns}))
    readings = encoder_readings(
        backbone.encoder,
        embed(backbone.encoder, backbone.table, hidden=stated),
        {head: _unseen(head, label, settings) for head, label in labels.items()},
        _speaks_of(categories),
    )
    return build_knowledge(catalog, out, heads=readings, tagger=tagger)


def _unseen(head: HeadName, label: HeadLabels, settings: Settings) -> Tensor:
    """``(N,)``: the classes of products that the head did not learn from, -1 elsewhere."""
    if head != "target_type":
        return label.target.masked_fill(~held_out(len(label.target)), UNLABELLED)
    generator = np.random.default_rng(settings.seed)
    _, tested = few_shots(label.target, settings.finetune.target_shots, generator)
    unseen = torch.full_like(label.target, UNLABELLED)
    unseen[tested] = label.target[tested]
    return unseen


def _speaks_of(categories: Categories | None) -> dict[HeadName, Tensor]:
    """A head of types speaks of its own category, and of products without a type."""
    if categories is None:
        return {}
    untyped = ~(categories.source | categories.target)
    return {
        "source_type": categories.source | untyped,
        "target_type": categories.target | untyped,
    }
