"""The gate of a retrained version: a paired test with the served one on the newest days.

Both rank the same cases. ``better`` asks that the candidate's NDCG is significantly higher,
``no-worse`` that the 95 % interval of the difference excludes a loss of more than a margin, and
that the candidate is not significantly worse.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from scipy import sparse
from torch import Tensor

from newshelf.catalog.catalog import Catalog
from newshelf.config import RetrainSettings, Settings
from newshelf.evaluation.baselines import ContentNeighbours
from newshelf.evaluation.evaluate import evaluate
from newshelf.evaluation.significance import PairedTest, paired_test
from newshelf.evaluation.types import Case, Compared, GateResult, Ranker, Split
from newshelf.nn.blend import Blend, nearest_shares
from newshelf.nn.checkpoint import Checkpoint, load_checkpoint
from newshelf.nn.inputs import Tokenizer
from newshelf.pipeline.workspace import Workspace
from newshelf.training.backbone import set_up_torch
from newshelf.training.features import feature_table
from newshelf.training.finetune import embed
from newshelf.training.ranking import BlendRanker, Ranking, train_ranking
from newshelf.training.run import Run

IntArray = npt.NDArray[np.int64]
_BLOCK = 2048
K = 10
"""Cut-off of the gate's NDCG."""


def gate(
    served: Path,
    place: Workspace,
    settings: Settings,
    catalog: Catalog,
    split: Split,
    *,
    console: Console,
) -> GateResult:
    """Compare the checkpoint ``served`` with that of ``place`` on the newest days of ``catalog``.

    The candidate's encoder has seen no event, so it is used as it is. Its scorer and signals were
    trained on all events, so they are trained again without the newest days, as the candidate's
    were: from the served version's scorer, if the settings say so.
    """
    set_up_torch(settings)
    before, after = load_checkpoint(served), load_checkpoint(place.checkpoint)
    now = _served_ranker(before, catalog, split, place.features, console)
    _, embeddings = after.embeddings()
    if after.scorer is None:
        return pass_gate(split, now, _content(split, embeddings), settings.retrain)
    ranking = train_ranking(
        embeddings,
        split.train,
        settings.scorer,
        Run(seed=settings.seed, console=console),
        start=before.scorer if settings.retrain.warm_start else None,
    )
    return pass_gate(split, now, BlendRanker(ranking, embeddings, "candidate"), settings.retrain)


def _served_ranker(
    served: Checkpoint, catalog: Catalog, split: Split, features: Path, console: Console
) -> Ranker:
    """Return the served version's ranking of a later catalogue.

    Products that it was not trained on are encoded by it, as the live shelf does.
    """
    text = served.spec.encoder.text
    path = served.directory / "tokenizer.json"
    tokenizer = Tokenizer(path, text.max_tokens, text.pad_token_id) if text else None
    table = feature_table(catalog, served.encoder, tokenizer, features, console)
    embeddings = embed(served.encoder, table)
    if served.scorer is None:
        return _content(split, embeddings)
    blend = served.blend
    if blend is not None:
        ids, trained = served.embeddings()
        places = {identity: row for row, identity in enumerate(ids)}
        rows = np.array([places.get(identity, -1) for identity in catalog.items["id"]])
        blend = carried_over(blend, rows, embeddings, trained)
    return BlendRanker(Ranking(served.scorer, blend, []), embeddings, "served")


def _content(split: Split, embeddings: Tensor) -> Ranker:
    return ContentNeighbours(split, embeddings.numpy(), "kernel")


def carried_over(blend: Blend, rows: IntArray, embeddings: Tensor, trained: Tensor) -> Blend:
    """Return the signals of a version for other products than it was trained on.

    ``rows`` ``(N,)`` are the products' rows in ``blend``, -1 for new ones, which take the links
    and the prior of the nearest of ``trained`` ``(M, D)``. ``embeddings`` are ``(N, D)``.
    """
    shape = (len(rows), len(blend))
    known, new = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
    kept = sparse.csr_array(
        (np.ones(len(known), dtype=np.float32), (known, rows[known])), shape=shape
    )
    alike = sparse.csr_array(shape, dtype=np.float32)
    for start in range(0, len(new), _BLOCK):
        part = new[start : start + _BLOCK]
        top, shares = nearest_shares(embeddings[part].numpy(), trained.numpy())
        owner = np.repeat(part, top.shape[1])
        alike = alike + sparse.csr_array((shares.ravel(), (owner, top.ravel())), shape=shape)
    return Blend(
        blend.spec,
        (kept @ blend.links @ kept.T).tocsr(),
        ((kept @ blend.neighbours + alike) @ kept.T).tocsr(),
        ((kept + alike) @ blend.prior).astype(np.float32),
    )


def new_products(split: Split) -> Split | None:
    """Return the cases whose products are in no training event, without the others."""
    known = np.unique(split.train.items)
    found = [(case, np.setdiff1d(case.relevant, known)) for case in split.cases]
    cases = [Case(case.history, relevant) for case, relevant in found if len(relevant)]
    return replace(split, name="new products", cases=cases) if cases else None


def compare_on(split: Split, served: Ranker, candidate: Ranker) -> tuple[Compared, PairedTest]:
    """Rank the cases by both, and test the difference of NDCG."""
    metric = f"NDCG@{K}"
    ours, theirs = (evaluate(ranker, split, (K,)) for ranker in (candidate, served))
    test = paired_test(ours.per_case[metric], theirs.per_case[metric], ours.groups)
    compared = Compared(
        name=split.name,
        cases=test.cases,
        served=test.second,
        candidate=test.first,
        interval=test.interval,
        p_value=test.p_value,
    )
    return compared, test


def judge(test: PairedTest, settings: RetrainSettings) -> tuple[bool, str]:
    """Return whether the gate lets the candidate (the test's first) pass, and why."""
    low, high = test.interval or (-1.0, 1.0)
    lost = settings.margin * test.second
    if test.verdict == "worse" or settings.gate == "better":
        passed = test.verdict == "better"
        verdict = "worse" if test.verdict == "worse" else "better" if passed else "not better"
    else:
        passed = low >= -lost
        verdict = f"{'not worse' if passed else 'perhaps worse'} by {lost:.4f}"
    return passed, (
        f"the candidate is {verdict}: NDCG@{K} is {test.first:.4f}, and {test.second:.4f} of the "
        f"served version (difference {test.difference:+.4f}, 95 % {low:+.4f} to {high:+.4f}, "
        f"{test.cases} cases)"
    )


def pass_gate(
    split: Split, served: Ranker, candidate: Ranker, settings: RetrainSettings
) -> GateResult:
    """Compare two versions on the cases, and decide."""
    compared, test = compare_on(split, served, candidate)
    passed, reason = judge(test, settings)
    new = new_products(split)
    also = (compare_on(new, served, candidate)[0],) if new is not None else ()
    return GateResult(
        passed=passed, reason=reason, split=split.description, compared=(compared, *also)
    )
