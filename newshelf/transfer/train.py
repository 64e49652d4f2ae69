"""A catalogue and settings to a checkpoint: the whole training run."""

import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from torch import Tensor

from newshelf.catalog import Catalog
from newshelf.config import Settings
from newshelf.evaluation.interactions import Interactions, read_interactions
from newshelf.nn.checkpoint import save_checkpoint
from newshelf.nn.scorer import SiameseScorer
from newshelf.nn.spec import HeadName, ModelSpec
from newshelf.transfer.build import Backbone, build_backbone, set_threads
from newshelf.transfer.finetune import FinetuneResult, embed, train_source, train_target_head
from newshelf.transfer.labels import HeadLabels, choose_categories, head_labels
from newshelf.transfer.siamese import train_scorer

__all__ = ["train"]


def train(
    catalog: Catalog, settings: Settings, out: Path, features_dir: Path, console: Console
) -> None:
    """Fine-tune on the source, fit the target's head, train the scorer, write ``out``.

    Without events or baskets there is no scorer: the model then serves content neighbours.

    Raises:
        TrainingError: there is not enough, or not the right, data.
        WeightsError: a tower's weights cannot be used.
    """
    set_threads(settings)
    started = time.monotonic()
    categories = choose_categories(catalog, settings.finetune.source)
    labels = head_labels(catalog, categories)
    if categories is not None:
        console.print(
            f"source category: {categories.source_name} ({int(categories.source.sum())} "
            f"products); target: {categories.target_name} ({int(categories.target.sum())})"
        )
    classes = {head: label.classes for head, label in labels.items()}
    backbone = build_backbone(catalog, settings, classes, features_dir, console)
    results = _finetune(backbone, labels, settings, console)
    embeddings = embed(backbone.encoder, backbone.table)
    scorer, losses = _scorer(catalog, embeddings, settings, console)
    save_checkpoint(
        out,
        spec=ModelSpec(
            catalog_name=catalog.name,
            encoder=backbone.encoder.spec,
            scorer=scorer.spec if scorer else None,
        ),
        encoder=backbone.encoder,
        scorer=scorer,
        tokenizer_json=backbone.tokenizer_json,
        ids=[str(value) for value in catalog.items["id"]],
        embeddings=embeddings,
        training={
            "finetune": [asdict(result) for result in results],
            "scorer_losses": losses,
            "seconds": round(time.monotonic() - started, 1),
        },
    )


def _finetune(
    backbone: Backbone,
    labels: dict[HeadName, HeadLabels],
    settings: Settings,
    console: Console,
) -> list[FinetuneResult]:
    results = [train_source(backbone.encoder, backbone.table, labels, settings.finetune, console)]
    if "target_type" in labels:
        results.append(
            train_target_head(
                backbone.encoder,
                backbone.table,
                labels["target_type"],
                settings.finetune,
                settings.seed,
                console,
            )
        )
    for result in results:
        for head, accuracy in result.accuracy.items():
            console.print(
                f"  {head}: {accuracy:.1%} right on {result.tested[head]} products not learned from"
            )
    return results


def _scorer(
    catalog: Catalog, embeddings: Tensor, settings: Settings, console: Console
) -> tuple[SiameseScorer | None, list[float]]:
    if _without_interactions(catalog):
        console.print("[yellow]no events and no baskets: content neighbours will be served[/]")
        return None, []
    interactions: Interactions = read_interactions(catalog)
    result = train_scorer(
        embeddings,
        interactions.sequences,
        ordered=interactions.timestamps is not None,
        settings=settings.scorer,
        seed=settings.seed,
        console=console,
    )
    return result.scorer, result.losses


def _without_interactions(catalog: Catalog) -> bool:
    return all(table is None or table.empty for table in (catalog.events, catalog.baskets))
