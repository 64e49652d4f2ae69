"""Encoders fine-tuned on some of a catalogue's products, from the packaged towers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.transfer.command import TransferContext
from newshelf.config import FinetuneSettings
from newshelf.nn.encoder import Encoder
from newshelf.nn.spec import EncoderSpec, HeadName
from newshelf.training.backbone import Backbone
from newshelf.training.features import FeatureTable
from newshelf.training.finetune import FinetuneResult, train_source, warm_start
from newshelf.training.labels import HeadLabels
from newshelf.training.run import Run


def table_rows(table: FeatureTable, rows: Tensor) -> FeatureTable:
    """Return some rows of a table."""
    features, attributes = table.rows(rows)
    return FeatureTable(*features, attributes)


def finetuned(
    context: TransferContext,
    backbone: Backbone,
    spec: EncoderSpec,
    labels: Mapping[HeadName, HeadLabels],
    rows: Tensor,
    settings: FinetuneSettings,
    modality_dropout: float,
    seed: int,
) -> tuple[Encoder, FinetuneResult]:
    """Return an encoder of ``spec`` with the backbone's towers, fine-tuned on ``rows``."""
    torch.manual_seed(seed)
    encoder = Encoder(spec).eval()
    encoder.image_tower = backbone.encoder.image_tower
    encoder.text_tower = backbone.encoder.text_tower
    table = table_rows(backbone.table, rows)
    warm_start(encoder, table)
    own = {head: HeadLabels(label.classes, label.target[rows]) for head, label in labels.items()}
    run = Run(seed, context.console, quiet=True)
    result = train_source(encoder, table, own, settings, run, modality_dropout=modality_dropout)
    return encoder, result
