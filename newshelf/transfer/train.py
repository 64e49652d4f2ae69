"""A catalogue and settings to a checkpoint: the whole training run."""

import time
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from newshelf.catalog import Catalog
from newshelf.config import Settings
from newshelf.evaluation.interactions import Interactions
from newshelf.nn.checkpoint import KNOWLEDGE_FOLDER, save_checkpoint
from newshelf.nn.spec import HeadName, ModelSpec
from newshelf.transfer.build import Backbone, build_backbone, set_up_torch
from newshelf.transfer.finetune import FinetuneResult, embed, train_source, train_target_head
from newshelf.transfer.group import is_first
from newshelf.transfer.know import trained_tagger, write_knowledge
from newshelf.transfer.labels import HeadLabels, choose_categories, head_labels
from newshelf.transfer.precheck import label_notes, usable_interactions
from newshelf.transfer.ranking import Ranking, train_ranking
from newshelf.transfer.run import Run
from newshelf.transfer.tower import tower_tuning

__all__ = ["train"]


def train(catalog: Catalog, settings: Settings, out: Path, features_dir: Path, run: Run) -> None:
    """Fine-tune on the source, fit the target's head, train the scorer, write ``out``.

    Without enough events or baskets there is no scorer: the model then serves content
    neighbours. With several processes, the first one writes.

    Raises:
        TrainingError: there is not enough, or not the right, data.
        WeightsError: a tower's weights cannot be used.
    """
    set_up_torch(settings)
    started = time.monotonic()
    categories = choose_categories(catalog, settings.finetune.source)
    labels = head_labels(catalog, categories)
    if categories is not None:
        run.tell(
            f"source category: {categories.source_name} ({int(categories.source.sum())} "
            f"products); target: {categories.target_name} ({int(categories.target.sum())})"
        )
    # What lacks is told before the hours that pictures may take.
    for line in label_notes(catalog, categories, settings.finetune.target_shots):
        run.tell(line)
    interactions, lack = usable_interactions(catalog)
    if lack:
        run.tell(lack)
    classes = {head: label.classes for head, label in labels.items()}
    tagger = trained_tagger(settings)
    backbone = build_backbone(
        catalog,
        settings,
        classes,
        features_dir,
        run.console,
        tune_towers=tower_tuning(catalog, labels.get("source_type"), settings, run),
    )
    results = _finetune(backbone, labels, settings, run)
    embeddings = embed(backbone.encoder, backbone.table)
    ranking = _ranking(interactions, embeddings, settings, run)
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
            "scorer_losses": ranking.losses if ranking else [],
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    knowledge = write_knowledge(
        catalog, backbone, labels, categories, settings, tagger, out / KNOWLEDGE_FOLDER
    )
    run.tell(f"{len(knowledge.facts)} statements about the products are written down")


def _finetune(
    backbone: Backbone, labels: dict[HeadName, HeadLabels], settings: Settings, run: Run
) -> list[FinetuneResult]:
    results = [
        train_source(
            backbone.encoder,
            backbone.table,
            labels,
            settings.finetune,
            run,
            modality_dropout=settings.fusion.modality_dropout,
        )
    ]
    if "target_type" in labels:
        results.append(
            train_target_head(
                backbone.encoder, backbone.table, labels["target_type"], settings.finetune, run
            )
        )
    for result in results:
        for head, accuracy in result.accuracy.items():
            run.tell(
                f"  {head}: {accuracy:.1%} right on {result.tested[head]} products not learned from"
            )
    return results


def _ranking(
    interactions: Interactions | None, embeddings: Tensor, settings: Settings, run: Run
) -> Ranking | None:
    if interactions is None:
        return None
    return train_ranking(
        embeddings, interactions.sequences, interactions.timestamps, settings.scorer, run
    )
