"""The whole training run: from a catalogue and settings to a checkpoint.

Starts or resumes a run, reports missing data before any time is spent on it, trains encoder,
scorer and signals, and writes facts about the products.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from newshelf.attributes.build import Knowledge, build_knowledge
from newshelf.attributes.learn import encoder_predictions
from newshelf.attributes.title_tagger import TitleTagger, tagger_from_titles
from newshelf.catalog.catalog import Catalog
from newshelf.catalog.interactions import Interactions, read_interactions
from newshelf.config import Settings
from newshelf.files import read_json, write_json
from newshelf.nn.checkpoint import KNOWLEDGE_FOLDER, save_checkpoint
from newshelf.nn.spec import HeadName, ModelSpec
from newshelf.training.backbone import Backbone, build_backbone, set_up_torch
from newshelf.training.distributed import agreed, is_first
from newshelf.training.finetune import (
    STATED_BY,
    FinetuneResult,
    embed,
    held_out,
    train_source,
    train_target_head,
)
from newshelf.training.labels import (
    MIN_PER_CLASS,
    UNLABELLED,
    Categories,
    HeadLabels,
    all_labels,
    choose_categories,
    few_shots,
    head_labels,
    test_size,
)
from newshelf.training.ranking import Ranking, train_ranking
from newshelf.training.run import NoTracker, Run, Tracker, make_tracker
from newshelf.training.tower_tuning import tower_tuning

LABELS = {
    "source": "fine-tuning on the source category",
    "target": "head of the target category",
}
"""What the progress bars say."""

_STARTED = "started.json"


@contextmanager
def start_run(
    settings: Settings, console: Console, *, state: Path, identity: str, runs: Path
) -> Iterator[Run]:
    """Yield the run; its tracker is closed at the end, as failed when there was an error.

    Args:
        settings: seed and ``[tracking]``.
        console: where progress is shown.
        state: a folder for what is kept of this run.
        identity: of everything the result depends on.
        runs: where trackers write unless the settings name another place.
    """
    name = agreed(_name(state, identity, console) if is_first() else None)
    tracker: Tracker = NoTracker()
    if is_first():
        tracker = make_tracker(settings.tracking, runs, name, _flat(settings))
    failed = True
    try:
        yield Run(settings.seed, console, state, identity, tracker, labels=LABELS)
        failed = False
    finally:
        tracker.close(failed=failed)


def _name(state: Path, identity: str, console: Console) -> str:
    """The name of the run that ``state`` was kept by, or a new one."""
    path = state / _STARTED
    try:
        kept = read_json(path)
        if kept["identity"] == identity:
            console.print(f"resuming the training that began at {kept['name']}")
            return str(kept["name"])
    except (OSError, ValueError, KeyError, TypeError):
        # None was begun, or it did not get as far as to say so.
        pass
    name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    write_json(path, {"identity": identity, "name": name})
    return name


def _flat(settings: Settings) -> dict[str, object]:
    table = settings.model_dump(mode="json")
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    plain = {key: value for key, value in table.items() if key not in sections}
    return plain | {
        f"{section}.{key}": value
        for section, keys in sections.items()
        for key, value in keys.items()
        if section not in {"archive", "sample"}
    }


_MIN_SEQUENCES = 2
_COLUMNS = {
    "source_type": "product_type",
    "target_type": "product_type of the target",
    "color": "color",
    "material": "material",
}


def label_notes(catalog: Catalog, categories: Categories | None, shots: int) -> list[str]:
    """A line for each head that cannot be trained, and for classes poorer than ``shots``."""
    labels = all_labels(catalog, categories)
    notes = [
        f"{_COLUMNS[head]}: all labelled products are {label.classes[0]!r}, and one class is "
        f"nothing to tell apart: no head is trained on it; name at least two, of "
        f"{MIN_PER_CLASS} products each"
        for head, label in labels.items()
        if len(label.classes) == 1
    ]
    if not head_labels(catalog, categories):
        notes.append(
            "no column has two classes to learn from: the embedding stays what the towers see, "
            "and no labels are predicted; product_type, color or material would teach it"
        )
    target = labels.get("target_type")
    if target is not None and len(target.classes) > 1:
        notes += _poor_classes(target, shots)
    return notes


def _poor_classes(target: HeadLabels, shots: int) -> list[str]:
    counts = Counter(value for value in target.target.tolist() if value >= 0)
    left = {target.classes[value]: n - test_size(n) for value, n in counts.items()}
    poor = {name: count for name, count in left.items() if count < shots}
    if not poor:
        return []
    fewest = min(poor, key=lambda name: (poor[name], name))
    return [
        f"product_type of the target: {len(poor)} of {len(left)} classes have fewer labelled "
        f"products to learn from than [finetune] target_shots = {shots}; the fewest, "
        f"{poor[fewest]}, has {fewest!r}: those are used"
    ]


def usable_interactions(catalog: Catalog) -> tuple[Interactions | None, str]:
    """Return the interactions that the scorer can learn from, or None and the reason."""
    served = "content neighbours will be served"
    tables = (catalog.events, catalog.baskets)
    if all(table is None or table.empty for table in tables):
        why = "; ".join(catalog.report.unusable()) or "no events and no baskets"
        return None, f"{why}: {served}"
    interactions = read_interactions(catalog)
    whose = "baskets" if interactions.timestamps is None else "shoppers"
    useful = sum(len(np.unique(sequence)) > 1 for sequence in interactions.sequences)
    if useful >= _MIN_SEQUENCES:
        return interactions, ""
    return None, (
        f"{useful} of {len(interactions.sequences)} {whose} have two different products, and the "
        f"scorer needs at least {_MIN_SEQUENCES} of them to learn what goes together: {served}; "
        f"bring more {'events' if whose == 'shoppers' else whose}"
    )


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
    readings = encoder_predictions(
        backbone.encoder,
        embed(backbone.encoder, backbone.table, hidden=stated),
        {head: _unseen(head, label, settings) for head, label in labels.items()},
        _applies_to(categories),
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


def _applies_to(categories: Categories | None) -> dict[HeadName, Tensor]:
    """A head of types speaks of its own category, and of products without a type."""
    if categories is None:
        return {}
    untyped = ~(categories.source | categories.target)
    return {
        "source_type": categories.source | untyped,
        "target_type": categories.target | untyped,
    }


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
    # Missing data is reported before the hours that pictures may take.
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
