"""All splits of a catalogue, each training used once."""

from collections.abc import Callable, Sequence

from rich.console import Console

from newshelf.evaluation.baselines import default_baselines
from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.evaluate import compare
from newshelf.evaluation.interactions import CatalogTables
from newshelf.evaluation.types import FloatArray, Ranker, Split

__all__ = ["compare_all"]


def compare_all(
    splits: Sequence[Split],
    catalog: CatalogTables,
    *,
    k: Sequence[int] = (10, 20),
    features: FloatArray | None = None,
    fit_model: Callable[[Split], Ranker] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> list[Comparison]:
    """Compare the model with the default baselines on every split.

    Splits that share their ``train`` list (``cold`` and ``cold-among-new``) share the fitted
    baselines and the fitted model.

    Args:
        splits: as :func:`newshelf.evaluation.splits.default_splits` gives them.
        catalog: for the baselines.
        k: cut-offs.
        features: (n_items, D) float32 for the content baselines; None leaves them out.
        fit_model: fits the model on ``split.train`` alone; called once per distinct training.
        seed: of the random baseline.
        console: where the progress is shown; None is standard error.
    """
    fitted: dict[int, tuple[list[Ranker], Ranker | None]] = {}
    comparisons = []
    for split in splits:
        # The splits keep their lists alive, so an identity is not given away twice.
        if id(split.train) not in fitted:
            baselines = default_baselines(split, catalog, features, seed)
            fitted[id(split.train)] = baselines, fit_model(split) if fit_model else None
        baselines, model = fitted[id(split.train)]
        comparisons.append(compare(baselines, split, k, model=model, console=console))
    return comparisons
