"""Training of encoder, scorer and signals: from a catalogue and settings to a checkpoint.

Missing data is reported before any time is spent. Facts about the products are written with the
checkpoint.
"""

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from newshelf.attributes.build import HeadPredictions, Knowledge, build_knowledge
from newshelf.attributes.lexicon import ATTRIBUTES
from newshelf.attributes.title_tagger import TitleTagger, read_tagged, train_tagger
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import Interactions, read_interactions
from newshelf.config import Settings
from newshelf.nn.checkpoint import KNOWLEDGE_FOLDER, load_checkpoint, save_checkpoint
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import HeadName, ModelSpec
from newshelf.training.adaptation import adapt_heads
from newshelf.training.backbone import Backbone, build_backbone, set_up_torch
from newshelf.training.choose import Choice
from newshelf.training.distributed import is_first
from newshelf.training.features import tower_identity
from newshelf.training.finetune import (
    STATED_BY,
    FinetuneResult,
    embed,
    head_accuracy,
    head_logits,
    held_out,
    train_source,
    train_target_head,
)
from newshelf.training.inner_stages import add_inner_heads
from newshelf.training.labels import (
    UNLABELLED,
    Categories,
    HeadLabels,
    choose_categories,
    few_shots,
    head_labels,
    label_notes,
)
from newshelf.training.ranking import train_ranking
from newshelf.training.run import Run
from newshelf.training.tower_tuning import tower_tuning

_MIN_SEQUENCES = 2
"""Shoppers or baskets with two different products."""


def usable_interactions(catalog: Catalog, settings: Settings) -> tuple[Interactions | None, str]:
    """Return the interactions that the scorer can learn from; or None, and the reason."""
    served = "content neighbours will be served"
    tables = (catalog.events, catalog.baskets)
    if all(table is None or table.empty for table in tables):
        why = "; ".join(catalog.report.unusable()) or "no events and no baskets"
        return None, f"{why}: {served}"
    interactions = read_interactions(catalog, settings)
    kind = "baskets" if interactions.timestamps is None else "shoppers"
    useful = sum(len(np.unique(sequence)) > 1 for sequence in interactions.sequences)
    if useful >= _MIN_SEQUENCES:
        return interactions, ""
    return None, (
        f"{useful} of {len(interactions.sequences)} {kind} have two different products, and the "
        f"scorer needs at least {_MIN_SEQUENCES} of them to learn what goes together: {served}; "
        f"bring more {'events' if kind == 'shoppers' else kind}"
    )


def _write_facts(
    catalog: Catalog,
    backbone: Backbone,
    labels: dict[HeadName, HeadLabels],
    categories: Categories | None,
    settings: Settings,
    tagger: TitleTagger | None,
    out: Path,
) -> Knowledge:
    """Replace the folder ``out`` by the facts about every product.

    The heads predict without the columns that state their answer. Their confidence is calibrated
    on products that they were not trained on.
    """
    stated = tuple(sorted({column for columns in STATED_BY.values() for column in columns}))
    embeddings = embed(backbone.encoder, backbone.table, masked=stated)
    readings = []
    for head, label in labels.items():
        logits = head_logits(backbone.encoder, backbone.table, head, embeddings)
        readings.append(head_predictions(head, label, logits, categories, settings))
    return build_knowledge(catalog, out, heads=readings, tagger=tagger)


def split_labels(head: HeadName, label: HeadLabels, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return the classes ``(N,)`` of products to learn from and to test on, -1 elsewhere."""
    every = torch.arange(len(label.target))
    if head == "target_type":
        generator = np.random.default_rng(settings.seed)
        parts = few_shots(label.target, settings.finetune.target_shots, generator)
    else:
        held = held_out(len(every))
        parts = every[~held], every[held]
    apart = [~torch.isin(every, part) for part in parts]
    learned, tested = (label.target.masked_fill(mask, UNLABELLED) for mask in apart)
    return learned, tested


def head_predictions(
    head: HeadName,
    label: HeadLabels,
    logits: Tensor,
    categories: Categories | None,
    settings: Settings,
) -> HeadPredictions:
    """Return what a head predicts: of types, for its own category and for untyped products."""
    applies_to = torch.ones(len(logits), dtype=torch.bool)
    if categories is not None and head in ("source_type", "target_type"):
        own, other = categories.source, categories.target
        applies_to = own | ~other if head == "source_type" else other | ~own
    return HeadPredictions(
        attribute=head if head in ATTRIBUTES else "product_type",
        classes=label.classes,
        logits=logits.numpy(),
        held_out=split_labels(head, label, settings)[1].numpy(),
        applies_to=applies_to.numpy(),
    )


def train(
    catalog: Catalog,
    settings: Settings,
    out: Path,
    features_dir: Path,
    run: Run,
    *,
    start: Path | None = None,
) -> None:
    """Fine-tune on the source, fit the target's head, train the scorer, write ``out``.

    Without enough events or baskets there is no scorer, and the model serves content neighbours.
    With several processes, the first one writes. ``start`` is an earlier version's checkpoint.

    Raises:
        CatalogError: the tagger's data is missing or has a bad line.
        TrainingError: there is not enough data, or a loss is not finite.
        WeightsError: a tower's weights cannot be used.
    """
    set_up_torch(settings)
    started = time.monotonic()
    finetune = settings.finetune
    categories = choose_categories(catalog, finetune.source, finetune.target_group)
    labels = head_labels(catalog, categories)
    if categories is not None:
        run.tell(
            f"source category: {categories.source_name} ({int(categories.source.sum())} "
            f"products); target: {categories.target_name} ({int(categories.target.sum())})"
        )
    # Missing data is reported before the hours that pictures may take.
    for line in label_notes(catalog, categories, finetune.target_shots):
        run.tell(line)
    interactions, reason = usable_interactions(catalog, settings)
    if reason:
        run.tell(reason)
    classes = {head: label.classes for head, label in labels.items()}
    titles = settings.knowledge.tagger_data
    tagger = train_tagger(read_tagged(titles), settings.seed) if titles else None
    backbone = build_backbone(
        catalog,
        settings,
        classes,
        features_dir,
        run.console,
        tune_towers=tower_tuning(catalog, labels.get("source_type"), settings, run),
        features=settings.training.features,
    )
    earlier = start_from(start, backbone.encoder, run)
    results, choices = _finetune(backbone, labels, settings, run)
    embeddings = embed(backbone.encoder, backbone.table)
    ranking = None
    if interactions is not None:
        ranking = train_ranking(embeddings, interactions, settings.scorer, run, start=earlier)
    if not is_first():
        return
    save_checkpoint(
        out,
        spec=ModelSpec(
            catalog_name=catalog.name,
            encoder=backbone.encoder.spec,
            scorer=ranking.scorer.spec if ranking else None,
            blend=ranking.blend.spec if ranking and ranking.blend else None,
        ),
        encoder=backbone.encoder,
        scorer=ranking.scorer if ranking else None,
        blend=ranking.blend if ranking else None,
        tokenizer_json=backbone.tokenizer_json,
        ids=[str(value) for value in catalog.items["id"]],
        embeddings=embeddings,
        training={
            "finetune": [asdict(result) for result in results],
            "choices": [asdict(choice) for choice in choices],
            "newest_event": (
                None if catalog.events is None else int(catalog.events["timestamp"].max())
            ),
            "scorer_losses": ranking.losses if ranking else [],
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    knowledge = _write_facts(
        catalog, backbone, labels, categories, settings, tagger, out / KNOWLEDGE_FOLDER
    )
    run.tell(f"{len(knowledge.facts)} statements about the products are written down")


def _finetune(
    backbone: Backbone, labels: dict[HeadName, HeadLabels], settings: Settings, run: Run
) -> tuple[list[FinetuneResult], list[Choice]]:
    encoder, table = backbone.encoder, backbone.table
    split = {head: split_labels(head, label, settings) for head, label in labels.items()}
    starts = {}
    if table.inner is not None:
        starts = {head: embed(encoder, table, masked=STATED_BY[head]) for head in labels}
    dropout = settings.fusion.modality_dropout
    results = [
        train_source(encoder, table, labels, settings.finetune, run, modality_dropout=dropout)
    ]
    adapted, choices = adapt_heads(encoder, table, labels, settings.training, run)
    results += adapted
    if "target_type" in labels:
        result, found = train_target_head(encoder, table, labels, settings, run)
        results.append(result)
        choices += found
    learned = {head: rows for head, (rows, _) in split.items()}
    method, budget_s = settings.training.features, settings.training.budget_s
    choices += add_inner_heads(encoder, table, learned, starts, method, budget_s, run)
    for result in results:
        for head, tested in result.tested.items():
            if head in encoder.inner_heads:
                rows = torch.nonzero(split[head][1] != UNLABELLED).flatten()
                result.accuracy[head] = head_accuracy(encoder, table, head, split[head][1], rows)
            run.tell(
                f"  {head}: {result.accuracy[head]:.1%} right on {tested} products not learned from"
            )
    return results, choices


def start_from(folder: Path | None, encoder: Encoder, run: Run) -> SiameseScorer | None:
    """Load the weights of the checkpoint in ``folder`` into ``encoder``; return its scorer.

    Fusion, attribute tower, and heads of the same classes continue, if both versions read the same
    features. Otherwise nothing is loaded, and the run says why.
    """
    if folder is None:
        return None
    checkpoint = load_checkpoint(folder)
    earlier, name = checkpoint.encoder, f"version {checkpoint.version}"
    if _inputs(encoder) != _inputs(earlier):
        run.tell(
            f"training starts from scratch, not from {name}: its towers, attributes or fusion are "
            "others"
        )
        return None
    encoder.fusion.load_state_dict(earlier.fusion.state_dict())
    encoder.attribute_tower.load_state_dict(earlier.attribute_tower.state_dict())
    new = []
    for head, classes in encoder.spec.labels.items():
        if earlier.spec.labels.get(head) == classes:
            encoder.heads[head].load_state_dict(earlier.heads[head].state_dict())
        else:
            new.append(head)
    also = f"; heads with other classes start from scratch: {', '.join(new)}" if new else ""
    run.tell(f"training starts from {name}{also}")
    return checkpoint.scorer


def _inputs(encoder: Encoder) -> list[object]:
    """Return what two encoders must share, or else one's weights mean nothing to the other."""
    spec = encoder.spec
    towers = [(spec.image, encoder.image_tower), (spec.text, encoder.text_tower)]
    known = [tower_identity(one, tower) if one and tower else None for one, tower in towers]
    return [*known, spec.fusion, spec.embedding, spec.attributes.buckets, spec.attributes.width]
