"""Spans in Chinese shop titles: a trained tagger beside looking names up."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.transfer.context import Context
from benchmarks.transfer.result import Row
from newshelf.knowledge.gazetteer import Gazetteer
from newshelf.knowledge.span_f1 import SpanScore, span_scores
from newshelf.knowledge.spans import Span, TaggedTitle, read_tagged
from newshelf.knowledge.tagger import train_tagger

__all__ = ["ALL", "LABELS", "UNSEEN", "ChineseResult", "measure_chinese"]

ALL = "Chinese titles, span F1"
UNSEEN = "Chinese titles that are not among the training titles, span F1"
LABELS = {"HCCX": "product", "HPPX": "brand", "XH": "model", "MISC": "other"}
_TAGGER = "CRF"
_SETS = {ALL: False, UNSEEN: True}

Tag = Callable[[str], list[Span]]
Scores = Mapping[str, SpanScore]


@dataclass(frozen=True)
class ChineseResult:
    """What was measured."""

    rows: Sequence[Row]
    by_type: Mapping[str, Scores]
    """Of the first seed and all test titles: method → label → score."""
    trained_on: int
    tested_on: int
    seen: int
    """Test titles that are among the training titles, letter by letter."""


def measure_chinese(context: Context) -> ChineseResult:
    """Train on the training titles, with one tagger per seed, and score exact spans."""
    train, test = _titles(context)
    known = {tagged.title for tagged in train}
    gazetteer = Gazetteer.learn(train)
    baselines: dict[str, Tag] = {
        "longest name known": gazetteer.tag,
        "longest name that is mostly one": lambda title: gazetteer.tag(title, 0.5),
    }
    taggers = [_train(train, seed) for seed in context.seeds]
    rows: list[Row] = []
    for measure, unseen in _SETS.items():
        titles = [tagged for tagged in test if not (unseen and tagged.title in known)]
        if not titles:
            continue
        for name, tag in baselines.items():
            f1 = _scores(tag, titles)[""].f1
            rows.append(Row(measure, name, [f1] * len(context.seeds), baseline=True))
        rows.append(Row(measure, _TAGGER, [_scores(tag, titles)[""].f1 for tag in taggers]))
    return ChineseResult(
        rows=[*rows, *_by_label(baselines, taggers, test)],
        by_type={
            **{name: _scores(tag, test) for name, tag in baselines.items()},
            _TAGGER: _scores(taggers[0], test),
        },
        trained_on=len(train),
        tested_on=len(test),
        seen=sum(tagged.title in known for tagged in test),
    )


def _titles(context: Context) -> tuple[list[TaggedTitle], list[TaggedTitle]]:
    folder = context.data / "titles-zh"
    train, dev = (read_tagged(folder / f"{name}.jsonl") for name in ("train", "dev"))
    kept = sorted((context.kept_back / "titles-zh").glob("*.jsonl")) if context.kept_back else []
    if not kept:
        return train, dev
    return [*train, *dev], [tagged for path in kept for tagged in read_tagged(path)]


def _train(titles: Sequence[TaggedTitle], seed: int) -> Tag:
    with tempfile.TemporaryDirectory() as scratch:
        return train_tagger(titles, seed, Path(scratch)).tag


def _scores(tag: Tag, titles: Sequence[TaggedTitle]) -> Scores:
    return span_scores([tag(item.title) for item in titles], [item.spans for item in titles])


def _by_label(
    baselines: Mapping[str, Tag], taggers: Sequence[Tag], test: Sequence[TaggedTitle]
) -> list[Row]:
    looked_up = {name: _scores(tag, test) for name, tag in baselines.items()}
    tagged = [_scores(tag, test) for tag in taggers]
    rows: list[Row] = []
    for label, word in LABELS.items():
        measure = f"Chinese titles, span F1: {word} ({label})"
        none = SpanScore(0, 0, 0)
        for name, scores in looked_up.items():
            values = [scores.get(label, none).f1] * len(taggers)
            rows.append(Row(measure, name, values, baseline=True))
        rows.append(Row(measure, _TAGGER, [scores.get(label, none).f1 for scores in tagged]))
    return rows
