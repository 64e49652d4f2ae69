"""How good the trained model's kind is on what it has not seen.

The encoder never looks at events, so it is taken as it is; the scorer that is served was
trained on all of them, so each split trains one of its own on its training part.
"""

from pathlib import Path

from rich.console import Console

from newshelf.catalog import Catalog
from newshelf.config import Settings
from newshelf.evaluation.funnel import funnel
from newshelf.evaluation.report import Report, write_report
from newshelf.evaluation.run import compare_all
from newshelf.evaluation.splits import default_splits
from newshelf.evaluation.types import Ranker, Split
from newshelf.files import directory_aside
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.nn.inputs import Tokenizer
from newshelf.transfer.build import set_up_torch
from newshelf.transfer.features import feature_table
from newshelf.transfer.portrait import portray
from newshelf.transfer.ranking import BlendRanker, train_ranking
from newshelf.transfer.run import Run

__all__ = ["evaluate_checkpoint"]


def evaluate_checkpoint(
    catalog: Catalog,
    settings: Settings,
    checkpoint_dir: Path,
    features_dir: Path,
    out: Path,
    console: Console,
) -> Report:
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
    splits = default_splits(catalog, settings.evaluation, settings.seed)

    def fit_model(split: Split) -> Ranker:
        ranking = train_ranking(
            embeddings, split.train, split.train_timestamps, settings.scorer, run
        )
        return BlendRanker(ranking, embeddings)

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
        portrait = portray(catalog, settings, checkpoint, table, embeddings, aside)
        report = Report(
            catalog=catalog.name,
            items=len(catalog.items),
            seed=settings.seed,
            comparisons=comparisons,
            model_version=checkpoint.version,
            funnel=None if catalog.events is None else funnel(catalog.events, catalog.items),
            shots=portrait.shots,
            pictures=portrait.pictures,
            notes=portrait.notes,
        )
        write_report(report, aside)
    return report
