"""Evaluation of the trained model: rankings on held-out data, few-shot accuracy and plots.

The encoder never sees events, so each split uses it as it is. The served scorer was trained on
all events, so each split trains its own on its training part.
"""

from pathlib import Path

import numpy as np
from rich.console import Console
from torch import Tensor

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.config import Settings
from newshelf.evaluation.evaluate import compare_all
from newshelf.evaluation.funnel import funnel
from newshelf.evaluation.kinds import evaluate_kinds
from newshelf.evaluation.metrics import FewShot, few_shot, segment_results
from newshelf.evaluation.plots import Gallery, draw_model
from newshelf.evaluation.report import EvaluationReport, write_report
from newshelf.evaluation.splits import default_splits
from newshelf.evaluation.types import Ranker, Split
from newshelf.files import directory_aside, read_json
from newshelf.nn.checkpoint import Checkpoint, load_checkpoint
from newshelf.nn.inputs import Tokenizer
from newshelf.report.page import Picture
from newshelf.training.backbone import set_up_torch
from newshelf.training.features import FeatureTable, feature_table
from newshelf.training.labels import choose_categories
from newshelf.training.ranking import BlendRanker, train_ranking
from newshelf.training.run import Run

_NO_SHOTS = (
    "No accuracy over shots: it needs two product types, each of six products or more, that the "
    "encoder was not fine-tuned on."
)


def portray(
    catalog: Catalog,
    settings: Settings,
    checkpoint: Checkpoint,
    table: FeatureTable,
    embeddings: Tensor,
    folder: Path,
) -> tuple[FewShot | None, list[Picture]]:
    """Measure few-shot accuracy on the target's types, and draw plots into ``folder``.

    Few-shot accuracy uses only products that the encoder was not fine-tuned on, since it has
    seen the labels of the others.

    ``table`` has the features of the frozen towers, ``embeddings`` are ``(N, 512)`` float32 of the
    model.
    """
    kinds = [category_levels(product.product_type) for product in catalog.products()]
    finetune = settings.finetune
    categories = choose_categories(catalog, finetune.source, finetune.target_group)
    target = np.zeros(len(kinds), dtype=np.bool_)
    if categories is not None:
        target = categories.target.numpy()
    before, after = table.content(), embeddings.numpy()
    new = np.flatnonzero(target).tolist()
    shots = few_shot(
        {"frozen towers": before[new], "trained encoder": after[new]},
        [" > ".join(kinds[row]) or None for row in new],
        seed=settings.seed,
    )
    gallery = Gallery(
        titles=[str(t) if isinstance(t, str) else "" for t in catalog.items["title"]],
        pictures=[catalog.image_path(row) for row in range(len(kinds))],
        kinds=kinds,
        before=before,
        after=after,
        new=target,
    )
    training = read_json(checkpoint.directory / "training.json")
    return shots, draw_model(gallery, training, shots, folder, settings.seed)


def evaluate_checkpoint(
    catalog: Catalog,
    settings: Settings,
    checkpoint_dir: Path,
    features_dir: Path,
    out: Path,
    console: Console,
) -> EvaluationReport:
    """Compare the model with the baselines on every split; write and return the report.

    Raises:
        TrainingError: the catalogue has no events or baskets, or too few.
        WeightsError: ``checkpoint_dir`` holds no checkpoint.
    """
    set_up_torch(settings)
    checkpoint = load_checkpoint(checkpoint_dir)
    text = checkpoint.spec.encoder.text
    path = checkpoint_dir / "tokenizer.json"
    tokenizer = Tokenizer(path, text.max_tokens, text.pad_token_id) if text else None
    table = feature_table(catalog, checkpoint.encoder, tokenizer, features_dir, console)
    _, embeddings = checkpoint.embeddings()
    run = Run(seed=settings.seed, console=console)
    splits = default_splits(catalog, settings.evaluation, settings.seed, settings)

    fitted: dict[str, BlendRanker] = {}

    def fit_model(split: Split) -> Ranker:
        ranking = train_ranking(embeddings, split.train, settings.scorer, run)
        fitted[split.name] = BlendRanker(ranking, embeddings)
        return fitted[split.name]

    comparisons = compare_all(
        splits,
        catalog,
        k=settings.evaluation.k,
        features=table.content(),
        fit_model=fit_model,
        seed=settings.seed,
        console=console,
    )
    with directory_aside(out) as aside:
        shots, pictures = portray(catalog, settings, checkpoint, table, embeddings, aside)
        report = EvaluationReport(
            catalog=catalog.name,
            items=len(catalog.items),
            seed=settings.seed,
            comparisons=comparisons,
            model_version=checkpoint.version,
            kinds=evaluate_kinds(
                splits[0],
                catalog,
                model=fitted[splits[0].name],
                blend=fitted[splits[0].name].ranking.blend,
                embeddings=embeddings.numpy(),
            ),
            segments=[
                segment
                for split, one in zip(splits, comparisons, strict=True)
                if one.model is not None
                for segment in segment_results(split, one.model, catalog)
            ],
            funnel=None if catalog.events is None else funnel(catalog.events, catalog.items),
            shots=shots,
            pictures=pictures,
            notes=[_NO_SHOTS] if shots is None else [],
        )
        write_report(report, aside)
    return report
