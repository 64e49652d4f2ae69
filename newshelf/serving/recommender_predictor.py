"""Predictions of the recommender for a batch of requests, and its loading from an archive.

The encoder's workers and archive do without this module: scipy, the index and the signals take
about 10 MB per process.
"""

import os
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from newshelf.config import Limits
from newshelf.errors import NewshelfError, VersionMismatch
from newshelf.nn.blend import ContentBound
from newshelf.nn.numpy_scorer import PairSums
from newshelf.nn.spec import ModelSpec, read_spec
from newshelf.serving.encode import Encoding, ProductEncoder
from newshelf.serving.encoder_predictor import (
    open_encoder,
    warm_up,
    warm_up_products,
    warm_up_sizes,
)
from newshelf.serving.golden import check_golden_embeddings, check_golden_scores
from newshelf.serving.index import ItemIndex, load_index
from newshelf.serving.kinds import (
    POPULAR,
    REASONS,
    Found,
    for_model,
    is_unread_sentence,
    like_history,
    pick,
    pick_found,
    popular_in,
    resolve_search,
)
from newshelf.serving.live import LiveIndex
from newshelf.serving.protocol import Answer, RawRequest, error_answer, json_answer, refuse_late
from newshelf.serving.ranking import ModelRanker, Picked, Ranked, categories_of
from newshelf.serving.requests import ParsedRequest, parse_recommend
from newshelf.serving.resolve import Encoded, Resolved, resolve
from newshelf.serving.rules import RuleSet
from newshelf.serving.runtimes.base import (
    Device,
    ScorerGraphs,
    open_runtime,
    projector_graph,
    scorer_graph,
)
from newshelf.serving.scoring import check_pooling
from newshelf.serving.segments import SHELF_VARIABLE
from newshelf.serving.settings import INDEX, ServingSettings, read_version
from newshelf.serving.shelf_reader import ShelfReader
from newshelf.serving.trace import RecordingObserver, StageTimer


@dataclass(eq=False)
class RecommenderPredictor:
    """Histories → ranked items; one forward of each graph for all requests of a batch.

    Without a scorer answers come from similarity, and without a shelf from the archive alone.
    Raises ``VersionMismatch`` if the index is another encoder's, lacks the scorer's vectors or
    numbers, or has those of another scorer.
    """

    encoder: ProductEncoder
    scorer: ScorerGraphs | None
    index: ItemIndex
    """The archive's."""
    model_version: str
    limits: Limits
    retrieve: int
    observer: RecordingObserver | None = None
    shelf: ShelfReader | None = None

    def __post_init__(self) -> None:
        made_by = self.index.manifest.encoder_version
        if made_by != self.model_version:
            raise VersionMismatch(f"index of encoder {made_by}, encoder {self.model_version}")
        self._live = LiveIndex.of(self.index)
        self._ranker = _ranker(self.index, self.scorer, self.retrieve)
        self._max_history = self.scorer.max_history if self.scorer else self.limits.max_history

    @property
    def live(self) -> LiveIndex:
        """The products of now."""
        return self._live if self.shelf is None else self.shelf.live

    @live.setter
    def live(self, live: LiveIndex) -> None:
        """Answer from this, whatever is published."""
        self._live, self.shelf = live, None

    def follow(self) -> None:
        """Follow the shelf, if there is one; in a process that is forked, after the fork."""
        if self.shelf is not None:
            self.shelf.follow()

    def over(self, index: ItemIndex) -> "RecommenderPredictor":
        """The same models over another index of the same encoder."""
        return replace(self, index=index, shelf=None)

    def with_rules(self, rules: RuleSet) -> "RecommenderPredictor":
        """The same models and products with other rules, whatever is published."""
        ruled = copy(self)
        ruled.live = self.live.with_rules(rules)
        return ruled

    def predict(self, rows: Sequence[RawRequest]) -> list[Answer]:
        """See ``newshelf.serving.protocol.Predictor``."""
        live = self.live
        stages = StageTimer()
        with stages.measure("parse"):
            parsed = [self._parse(row) for row in rows]
        encoded = self._encode(parsed, stages)
        with stages.measure("postprocess"):
            resolved = [
                self._resolve(row, products, live)
                for row, products in zip(parsed, encoded, strict=True)
            ]
        ready = [row for row in resolved if isinstance(row, Resolved)]
        ranked = iter(self._rank(ready, stages))
        with stages.measure("postprocess"):
            answers = [
                error_answer(row)
                if isinstance(row, NewshelfError)
                else self._answer(row, next(ranked), request.request_id)
                for row, request in zip(resolved, rows, strict=True)
            ]
        stages.report(self.observer, len(rows))
        return answers

    def _parse(self, row: RawRequest) -> ParsedRequest | NewshelfError:
        try:
            return parse_recommend(row, self.limits)
        except NewshelfError as error:
            return error

    def _encode(
        self, rows: Sequence[ParsedRequest | NewshelfError], stages: StageTimer
    ) -> list[dict[str, Encoded | NewshelfError]]:
        """Encode and project the inline products of all rows; for each row, by path."""
        inline = [row.inline if isinstance(row, ParsedRequest) else [] for row in rows]
        if not any(inline):
            return [{} for _ in rows]
        results = self.encoder.encode([item for items in inline for item in items], stages)
        with stages.measure("inference"):
            encoded = iter(project(results, self.scorer))
        return [{item.at: next(encoded) for item in items} for items in inline]

    def _resolve(
        self,
        row: ParsedRequest | NewshelfError,
        products: Mapping[str, Encoded | NewshelfError],
        live: LiveIndex,
    ) -> Resolved | NewshelfError:
        if isinstance(row, NewshelfError):
            return row
        good: dict[str, Encoded] = {}
        for at, result in products.items():
            if isinstance(result, Encoded):
                good[at] = result
            elif not is_unread_sentence(row, at, result):
                return result
        try:
            refuse_late(row.deadline_s)
            if row.request.search is not None:
                return resolve_search(row, good, live, self._max_history, self.retrieve)
            return resolve(row, good, live, self._max_history)
        except NewshelfError as error:
            return error

    def _rank(self, rows: Sequence[Resolved], stages: StageTimer) -> list[Ranked | None]:
        if (ranker := self._ranker) is None:
            return [None] * len(rows)
        with stages.measure("inference"):
            asked = [for_model(row) for row in rows]
            ranked = iter(ranker.rank([row for row in asked if row is not None]))
            return [None if row is None else next(ranked) for row in asked]

    def _answer(self, row: Resolved, by_model: Ranked | None, request_id: str) -> Answer:
        if isinstance(row, Found):
            picked = pick_found(row, by_model)
        else:
            picked = pick(row, by_model, self.retrieve)
        body: dict[str, object] = {
            "items": _items(row, picked),
            "model_version": self.model_version,
            "index_version": row.candidate_set.live.version,
            "request_id": request_id,
        }
        if row.ignored:
            body["ignored"] = row.ignored
        if isinstance(row, Found):
            body["understood"] = row.understood()
        return json_answer(body)


def project(
    results: Sequence[Encoding | NewshelfError], scorer: ScorerGraphs | None
) -> list[Encoded | NewshelfError]:
    """Return the embeddings with their projections, if there is a scorer."""
    good = [result.embedding for result in results if isinstance(result, Encoding)]
    vectors: list[NDArray[np.float32] | None] = [None] * len(good)
    if scorer is not None and good:
        vectors = list(scorer.projector.run({"embedding": np.stack(good)})["vector"])
    left = iter(vectors)
    return [
        Encoded(result.embedding, next(left)) if isinstance(result, Encoding) else result
        for result in results
    ]


def _ranker(index: ItemIndex, scorer: ScorerGraphs | None, retrieve: int) -> ModelRanker | None:
    """Return the ranker, with what of the index is looked up and not computed; None without one."""
    pooling, vectors, blend = index.manifest.pooling, index.vectors, index.blend
    if scorer is None and vectors is None:
        return None
    if scorer is None or vectors is None or pooling is None:
        raise VersionMismatch(
            "a scorer and the index's projected vectors and numbers go together: export both again"
        )
    check_pooling(pooling, scorer.scorer, vectors.shape[1])
    if blend is None:
        return ModelRanker(pooling, None, None, None, retrieve)
    pairs = PairSums.of(index.embeddings, vectors, pooling, blend.spec.temperature)
    # Where the content of all pairs is kept, nothing is gained by a bound.
    bound = ContentBound.of(index.embeddings) if pairs is None else None
    return ModelRanker(pooling, index.links, bound, pairs, retrieve)


def _items(row: Resolved, picked: Sequence[Picked]) -> list[dict[str, object]]:
    items, rules = [_item(row, item) for item in picked], row.candidate_set.rules
    if rules is not None:
        moved_by = rules.names([item.position for item in picked])
        for entry, item, names in zip(items, picked, moved_by, strict=True):
            if item.pinned_by is not None:
                names.append(item.pinned_by)
            if names:
                entry["rules"] = names
    return items


def _item(row: Resolved, item: Picked) -> dict[str, object]:
    entry: dict[str, object] = {
        "id": row.candidate_set.id(item.position),
        "score": item.score,
        "source": item.source,
    }
    if row.request.explain:
        entry["reason"] = _reason(row, item)
    return entry


def _reason(row: Resolved, item: Picked) -> str:
    facts = row.candidate_set.facts(item.position)
    if item.explained_by is not None:
        lexicon = row.candidate_set.live.base.table.known.reader.lexicon
        return like_history(facts, row.history.facts[item.explained_by], lexicon)
    if item.source == "popular_in_category":
        return popular_in(facts.product_type, categories_of(row))
    return REASONS.get(item.source) or POPULAR


def load_recommender_predictor(
    directory: Path,
    *,
    device: Device | None = None,
    settings: ServingSettings | None = None,
    observer: RecordingObserver | None = None,
) -> RecommenderPredictor:
    """Load encoder, scorer and index, and answer one request. See ``load_encoder_predictor``."""
    settings = settings or ServingSettings()
    device = device or Device()
    version = read_version(directory)
    encoder, scorer = open_models(directory, device, settings)
    index = load_index(
        directory / INDEX, encoder_version=version, min_confidence=settings.min_confidence
    )
    shelf = None
    if folder := os.environ.get(SHELF_VARIABLE):
        shelf = ShelfReader(Path(folder) / version, LiveIndex.of(index))
        shelf.read()
    predictor = RecommenderPredictor(
        encoder,
        scorer,
        index,
        model_version=version,
        limits=settings.limits,
        retrieve=settings.retrieve,
        observer=observer,
        shelf=shelf,
    )
    most = min(settings.limits.max_history, settings.limits.max_instances)
    batches = warm_up_products(encoder.spec, warm_up_sizes(settings, device))
    warm_up(predictor, [[{"history": products[:most]}] for products in batches])
    return predictor


def open_models(
    directory: Path, device: Device, settings: ServingSettings
) -> tuple[ProductEncoder, ScorerGraphs | None]:
    """Open encoder and scorer, and check that golden products are answered as at the export."""
    spec = read_spec(directory)
    encoder = open_encoder(directory, spec, device, settings)
    check_golden_embeddings(directory, encoder, settings, device)
    scorer = open_scorer(directory, spec, settings)
    if scorer is not None:
        check_golden_scores(directory, scorer, settings, Device())
    return encoder, scorer


def open_scorer(directory: Path, spec: ModelSpec, settings: ServingSettings) -> ScorerGraphs | None:
    """The scorer's graphs, on the CPU, where the index is; None for a model without one."""
    if spec.scorer is None:
        return None
    projector, scorer = (
        open_runtime(settings.runtime, directory, graph, Device(), settings.threads)
        for graph in (projector_graph(), scorer_graph())
    )
    return ScorerGraphs(projector, scorer, spec.scorer.max_history)
