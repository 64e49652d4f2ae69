"""The sample shop in Chinese: are products without events found as well as in English."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from benchmarks.records import Values
from benchmarks.results import Goal, RowBuilder, TaskResult
from benchmarks.transfer.command import TransferContext
from benchmarks.transfer.ranking import embedded, rankers
from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.config import Language
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.splits import default_splits
from newshelf.evaluation.types import Split
from newshelf.sample.build import draw_sample

_K = 10
_COLD = f"Recall@{_K}, cold items"
_MEASURES = {
    ("cold", "newshelf"): _COLD,
    ("cold-among-new", "newshelf"): f"{_COLD} among each other",
    ("cold", "Siamese scorer alone"): f"{_COLD}, Siamese scorer alone",
    ("cold", "content (kernel)"): f"{_COLD}, features of the frozen towers",
}
"""Split and ranker → measure."""
_ENGLISH, _CHINESE = "English", "Chinese"
VARIANTS: dict[str, tuple[Language, str]] = {
    _ENGLISH: ("en", "auto"),
    _CHINESE: ("zh", "auto"),
    "Chinese, English text tower": ("zh", "packaged"),
}
"""Name → language of the sample and ``text.weights``."""
_GOAL = 0.95


def run(context: TransferContext) -> TaskResult:
    """Rank the products of each sample for shoppers who came to products without events."""
    rows, cases = RowBuilder(), []
    for seed in context.seeds:
        context.console.print(f"sample-zh, seed {seed}")
        values = context.measured("sample-zh", seed, partial(_values, context, seed))
        for name in VARIANTS:
            rows.add(name, values[name], baseline=name == _ENGLISH)
        cases.append(str(values["cases"]))
    return TaskResult(
        task="sample-zh",
        title="sample: products without events, in Chinese and in English",
        protocol=(
            "The sample is drawn in both languages with the seed's products, pictures and "
            "shoppers; only its texts and values differ. Settings are the defaults, so the texts "
            "choose their tower. The split is the one of `./run evaluate`: a sample of the items "
            "loses all events, training ends before the latest fifth of the events, and all items "
            "are ranked (or those alone, *among each other*) for the shoppers who came to such an "
            f"item later. Both languages have the same cases ({', '.join(cases)} by seed). The "
            "weights of the signals are fitted on a part of the training data. The English sample "
            "counts as the baseline."
        ),
        rows=rows.rows(list(_MEASURES.values())),
        goals=[Goal(_COLD, _GOAL, "times", method=_CHINESE)],
        percent=False,
    )


def _values(context: TransferContext, seed: int) -> Values:
    """Return the measures of one seed by variant."""
    with TemporaryDirectory(dir=context.work) as folder:
        # Folders of one name share the cached features of their pictures.
        catalogs: dict[Language, Catalog] = {}
        for language in get_args(Language):
            path = Path(folder) / language / f"sample-{seed}"
            draw_sample(path, seed=seed, language=language)
            catalogs[language] = read_catalog(path)
        splits = _cold(catalogs["en"], context, seed)
        measured = {
            name: _measured(context, catalogs[language], weights, splits, seed)
            for name, (language, weights) in VARIANTS.items()
        }
    return {"cases": len(splits[0].cases), **measured}


def _cold(catalog: Catalog, context: TransferContext, seed: int) -> list[Split]:
    """Return the splits of cold items, all with the same training data and cases."""
    splits = default_splits(catalog, context.settings.evaluation, seed, context.settings)
    return [split for split in splits if split.name.startswith("cold")]


def _measured(
    context: TransferContext, catalog: Catalog, weights: str, splits: list[Split], seed: int
) -> dict[str, float]:
    """Return the recalls of a variant, by measure."""
    text = context.settings.text
    if text is None:
        raise ValueError("the settings have no text tower")
    settings = context.settings.model_copy(
        update={"text": text.model_copy(update={"weights": weights})}
    )
    chosen = replace(context, settings=settings)
    embeddings, features = embedded(chosen, catalog, seed)
    simple, own = rankers(chosen, catalog, splits[0], embeddings, features, seed)
    return {
        _MEASURES[split.name, ranker.name]: evaluate(ranker, split, (_K,)).values[f"Recall@{_K}"]
        for split in splits
        for ranker in (*simple, *own)
        if (split.name, ranker.name) in _MEASURES
    }
