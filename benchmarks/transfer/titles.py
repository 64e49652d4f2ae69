"""Attributes from titles: spans in Chinese ones, colours and types from English ones."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier

from benchmarks.methods.ctr.train import calibration_error
from benchmarks.results import Row, TaskResult
from benchmarks.transfer.command import TransferContext
from newshelf.attributes.build import HeadPredictions, catalog_texts, head_facts, learn_lexicon
from newshelf.attributes.lexicon import Lexicon, Texts, packaged_lexicon
from newshelf.attributes.title_tagger import (
    Gazetteer,
    Span,
    TaggedTitle,
    TitleTagger,
    read_tagged,
    train_tagger,
)
from newshelf.catalog.catalog import Catalog
from newshelf.report.plots import COLOURS, MUTED, new_figure, save

ALL = "Chinese titles, span F1"
UNSEEN = "Chinese titles that are not among the training titles, span F1"
LABELS = {"HCCX": "product", "HPPX": "brand", "XH": "model", "MISC": "other"}
_TAGGER = "CRF"


class SpanScore(NamedTuple):
    """Counts of spans, which are found if start, end and label agree (the CoNLL measure)."""

    found: int
    predicted: int
    true: int

    @property
    def f1(self) -> float:
        """Return 2 · found / (predicted + true), or 0."""
        total = self.predicted + self.true
        return 2 * self.found / total if total else 0.0


def span_scores(
    predicted: Sequence[Sequence[Span]], true: Sequence[Sequence[Span]]
) -> dict[str, SpanScore]:
    """Return micro-averaged scores of all titles: of all labels (``""``), then of each label.

    Raises:
        ValueError: the numbers of titles differ.
    """
    found: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    truths: Counter[str] = Counter()
    for guess, truth in zip(predicted, true, strict=True):
        for counter, spans in (
            (guesses, set(guess)),
            (truths, set(truth)),
            (found, set(guess) & set(truth)),
        ):
            for span in spans:
                counter[span.label] += 1
                counter[""] += 1
    labels = ["", *sorted((guesses | truths).keys() - {""})]
    return {label: SpanScore(found[label], guesses[label], truths[label]) for label in labels}


Tag = Callable[[str], list[Span]]
Scores = Mapping[str, SpanScore]


@dataclass(frozen=True)
class ChineseResult:
    """Result on the Chinese titles."""

    rows: Sequence[Row]
    by_type: Mapping[str, Scores]
    """Method → label → score, of the first seed and all test titles."""
    trained_on: int
    tested_on: int
    seen: int
    """Test titles that are among the training titles, letter by letter."""


def measure_chinese(context: TransferContext) -> ChineseResult:
    """Train a tagger per seed on the training titles, and score exact spans."""
    train, test = _titles(context)
    known = {tagged.title for tagged in train}
    gazetteer = Gazetteer.learn(train)
    methods: dict[str, list[Tag]] = {
        "longest name known": [partial(_longest, gazetteer, least_share=0.0)],
        "longest name that is mostly one": [partial(_longest, gazetteer, least_share=0.5)],
        _TAGGER: [partial(_tagged, train_tagger(train, seed)) for seed in context.seeds],
    }

    def scores(titles: Sequence[TaggedTitle]) -> dict[str, list[Scores]]:
        return {name: [_scores(tag, titles) for tag in tags] for name, tags in methods.items()}

    every = scores(test)
    rows = _f1_rows(ALL, every, len(context.seeds))
    if unseen := [tagged for tagged in test if tagged.title not in known]:
        rows += _f1_rows(UNSEEN, scores(unseen), len(context.seeds))
    for label, word in LABELS.items():
        measure = f"Chinese titles, span F1: {word} ({label})"
        rows += _f1_rows(measure, every, len(context.seeds), label)
    return ChineseResult(
        rows=rows,
        by_type={name: found[0] for name, found in every.items()},
        trained_on=len(train),
        tested_on=len(test),
        seen=len(test) - len(unseen),
    )


def _f1_rows(
    measure: str, scores: Mapping[str, Sequence[Scores]], seeds: int, label: str = ""
) -> list[Row]:
    """Return a row per method; one without seeds has the same value for each."""
    none = SpanScore(0, 0, 0)
    rows = []
    for name, found in scores.items():
        values = [one.get(label, none).f1 for one in found]
        is_baseline = name != _TAGGER
        rows.append(Row(measure, name, values * seeds if is_baseline else values, is_baseline))
    return rows


def _titles(context: TransferContext) -> tuple[list[TaggedTitle], list[TaggedTitle]]:
    folder = context.data / "titles-zh"
    train, dev = (read_tagged(folder / f"{name}.jsonl") for name in ("train", "dev"))
    kept = sorted((context.kept_back / "titles-zh").glob("*.jsonl")) if context.kept_back else []
    if not kept:
        return train, dev
    return [*train, *dev], [tagged for path in kept for tagged in read_tagged(path)]


def _longest(gazetteer: Gazetteer, title: str, *, least_share: float) -> list[Span]:
    return [Span(*match[:3]) for match in gazetteer.longest_matches(title, least_share)]


def _tagged(tagger: TitleTagger, title: str) -> list[Span]:
    return [found.span for found in tagger.find(title)]


def _scores(tag: Tag, titles: Sequence[TaggedTitle]) -> Scores:
    return span_scores([tag(item.title) for item in titles], [item.spans for item in titles])


COLOR, TYPE = "fashion, colour from the title", "fashion, type from the title"
CALIBRATION = "fashion, colour: how far confidences are off"
_LEAST = 0.6
"""Smallest confidence in serving."""
_LEARNED_SHARE = 0.5
_RATES = ("precision", "recall", "F1")
_RIDGE = 1.0
_MODEL = "picture + text model"
_PACKAGED, _LEARNED = "packaged words", "packaged and learned words"

Values = Collection[str]
Sure = Mapping[str, float]
"""Value → confidence."""
Read = Callable[[Texts], Values]


@dataclass(frozen=True)
class _Task:
    """One attribute: truth, and the values found by each method."""

    measure: str
    truth: Sequence[Values]
    said: Mapping[str, Sequence[Values]]
    baseline: str
    off: Mapping[str, float] = field(default_factory=dict)
    """Expected calibration error of each method that gives confidences."""


def measure_english(context: TransferContext) -> list[Row]:
    """Learn words on one half of the products and read the titles of the other.

    Each seed draws halves; a held-out part replaces the second one.
    """
    catalog = context.catalog("fashion")
    kept = context.kept_back_catalog("fashion")
    texts = catalog_texts(catalog)
    features = _features(context, catalog)
    runs: list[list[_Task]] = []
    for seed in context.seeds:
        learn = np.random.default_rng(seed).random(len(texts)) < _LEARNED_SHARE
        if kept is not None:
            tested = catalog_texts(kept)
            runs.append(_read(texts, tested, {}))
        else:
            known = [text for text, keep in zip(texts, learn, strict=True) if keep]
            tested = [text for text, keep in zip(texts, learn, strict=True) if not keep]
            runs.append(_read(known, tested, _heads(texts, features, learn, seed)))
    return _rows(runs)


def _read(
    known: Sequence[Texts], tested: Sequence[Texts], heads: Mapping[str, Sequence[Sure]]
) -> list[_Task]:
    packaged, learned = packaged_lexicon(), learn_lexicon(known)
    colours = {value for text in known for value in text.stated.get("color", ())}
    types = {text.stated["product_type"][0] for text in known if "product_type" in text.stated}
    readers: dict[str, Read] = {
        "any stated colour, as letters": lambda text: _inside(text.title, colours, packaged),
        _PACKAGED: lambda text: _certain(_sure(packaged, text)),
        _LEARNED: lambda text: _certain(_sure(learned, text)),
    }
    said: dict[str, Sequence[Values]] = {
        name: [read(text) for text in tested] for name, read in readers.items()
    }
    for name, sure in heads.items():
        said[name] = [_certain(values) for values in sure]
    if heads:
        words, model = said[_LEARNED], said[_MODEL]
        said["words, then the model"] = [a or b for a, b in zip(words, model, strict=True)]
    truth = [
        {packaged.canonical("color", value) for value in text.stated.get("color", ())}
        for text in tested
    ]
    confidences = {
        _PACKAGED: [_sure(packaged, text) for text in tested],
        _LEARNED: [_sure(learned, text) for text in tested],
        **heads,
    }
    leaves = {path.rsplit(" > ", 1)[-1].lower(): path.lower() for path in sorted(types)}
    return [
        _Task(
            COLOR,
            truth,
            said,
            "any stated colour, as letters",
            {name: _off(sure, truth) for name, sure in confidences.items()},
        ),
        _Task(
            TYPE,
            [{value.lower() for value in t.stated.get("product_type", ())} for t in tested],
            {
                "longest name of a type, as letters": [_leaf(t.title, leaves) for t in tested],
                _LEARNED: [_type(learned, text, types) for text in tested],
            },
            "longest name of a type, as letters",
        ),
    ]


def _sure(lexicon: Lexicon, text: Texts) -> Sure:
    found = lexicon.find(text.title)
    return {m.value: m.confidence for m in found if m.attribute == "color"}


def _certain(sure: Sure) -> Values:
    return {value for value, confidence in sure.items() if confidence >= _LEAST}


def _off(sure: Sequence[Sure], truth: Sequence[Values]) -> float:
    pairs = [
        (confidence, value in right)
        for one, right in zip(sure, truth, strict=True)
        if right
        for value, confidence in one.items()
    ]
    confidence, right = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return calibration_error(confidence, right)


def _type(lexicon: Lexicon, text: Texts, types: Values) -> Values:
    """Return the most confident of the types that products state."""
    found = [
        mention
        for mention in lexicon.find(text.title)
        if mention.attribute == "product_type" and mention.value in types
    ]
    best = max(found, key=lambda mention: mention.confidence, default=None)
    return {best.value.lower()} if best and best.confidence >= _LEAST else set()


def _inside(title: str, colours: Values, lexicon: Lexicon) -> Values:
    return {lexicon.canonical("color", value) for value in colours if value in title.lower()}


def _leaf(title: str, leaves: Mapping[str, str]) -> Values:
    # Without the plural's s, which is rare in titles.
    found = [name for name in leaves if name.removesuffix("s") in title.lower()]
    return {leaves[max(found, key=len)]} if found else set()


def _features(context: TransferContext, catalog: Catalog) -> NDArray[np.float32]:
    table = context.backbone(catalog).table
    parts = [part.numpy() for part in (table.image, table.text)]
    unit = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in parts]
    return np.concatenate(unit, axis=1).astype(np.float32)


def _heads(
    texts: Sequence[Texts], features: NDArray[np.float32], learn: NDArray[np.bool_], seed: int
) -> dict[str, list[Sure]]:
    """Train a linear head on frozen features, calibrated on a fifth of its products."""
    lexicon = packaged_lexicon()
    named = [text.stated.get("color", ("",))[0] for text in texts]
    colours = np.array([lexicon.canonical("color", value) if value else "" for value in named])
    rows = np.flatnonzero(learn & (colours != ""))
    rows = np.random.default_rng(seed).permutation(rows)
    held, trained = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    model = RidgeClassifier(alpha=_RIDGE).fit(features[trained], colours[trained])
    number = {value: at for at, value in enumerate(model.classes_)}
    target = np.full(len(texts), -1)
    target[held] = [number.get(value, -1) for value in colours[held]]
    reading = HeadPredictions(
        "color",
        list(model.classes_),
        model.decision_function(features).astype(np.float32),
        target,
        ~learn,
    )
    tested = np.flatnonzero(~learn)
    return {_MODEL: _facts(reading, tested)}


def _facts(reading: HeadPredictions, tested: NDArray[np.int64]) -> list[Sure]:
    ids = [str(row) for row in range(len(reading.logits))]
    said = {fact.item_id: fact for fact in head_facts(ids, reading, 0.0)}
    return [{said[str(row)].value: said[str(row)].confidence} for row in tested]


def _rows(runs: Sequence[Sequence[_Task]]) -> list[Row]:
    rows: list[Row] = []
    for tasks in zip(*runs, strict=True):
        scores = {
            name: [_rates(task.said[name], task.truth) for task in tasks] for name in tasks[0].said
        }
        for place, rate in enumerate(_RATES):
            rows += [
                Row(
                    f"{tasks[0].measure}: {rate}",
                    name,
                    [values[place] for values in found],
                    baseline=name == tasks[0].baseline,
                )
                for name, found in scores.items()
            ]
        rows += [
            Row(CALIBRATION, name, [task.off[name] for task in tasks], baseline=name == _PACKAGED)
            for name in tasks[0].off
        ]
    return rows


def _rates(said: Sequence[Values], truth: Sequence[Values]) -> tuple[float, float, float]:
    """Return micro-averages over the products that state the attribute."""
    pairs = [(set(one), set(other)) for one, other in zip(said, truth, strict=True) if other]
    right = sum(len(one & other) for one, other in pairs)
    found, wanted = sum(len(one) for one, _ in pairs), sum(len(other) for _, other in pairs)
    precision, recall = right / max(found, 1), right / max(wanted, 1)
    return precision, recall, 2 * right / max(found + wanted, 1)


def run(context: TransferContext) -> TaskResult:
    """Measure both languages, and draw the F1 of each kind of span."""
    chinese = measure_chinese(context)
    rows = [*chinese.rows, *measure_english(context), *_coverage(context)]
    figure = context.figures / "titles.png"
    _draw(chinese.by_type, figure)
    return TaskResult(
        task="titles",
        title="Knowledge from titles",
        protocol=_protocol(chinese),
        rows=rows,
        notes=_NOTES,
        figures={"F1 of each kind of span in Chinese titles, first seed": figure},
        lower_is_better=(CALIBRATION,),
    )


def _protocol(chinese: ChineseResult) -> str:
    return (
        f"Chinese: {chinese.trained_on:,} titles to train on, {chinese.tested_on:,} to test on; a "
        "span is found when start, end and label are exact, micro-averaged. "
        f"{chinese.seen:,} of the test titles are also training titles, letter by letter, so the "
        "titles that are not are measured apart. The tagger's settings were chosen on 800 "
        "training titles held out with all their repetitions. English: the fashion products, "
        "words learned on one half, the titles of the other read with colour and type hidden; "
        "micro-averaged over products that state the attribute. Seeds deal the folds and halves."
    )


_NOTES = (
    "The fashion products state one colour each; a second colour that a title names (‘Argon "
    "Black Yellow Sandal’) counts as wrong, so precision cannot reach 100 %.",
    "A published figure for exactly this Chinese set, split and these four labels was not found; "
    "the set is that of Jie et al., NAACL 2019, who take labels away from it.",
    "The demo store states no attribute: only how often something is found can be counted there. "
    "Of statements drawn at random and read by hand by one reader, 38 of 40 colours, 35 of 40 "
    "materials and 36 of 40 styles were right; most others were of something else in the "
    "picture that the description paints (‘atop a red book’).",
    "The model of picture and text is a ridge classifier on the packaged towers’ features, its "
    "probabilities calibrated on a fifth of its own half; it sees the title too.",
)


def _coverage(context: TransferContext) -> list[Row]:
    """Return rows with the share of the demo store's products with each attribute."""
    texts = catalog_texts(context.catalog("demo-store"))
    lexicon = learn_lexicon(texts)
    read = {
        "title": [text.title for text in texts],
        "title and description": [f"{text.title}. {text.description}" for text in texts],
    }
    rows: list[Row] = []
    for attribute in ("color", "material", "style"):
        for name, strings in read.items():
            share = sum(
                any(
                    mention.attribute == attribute and mention.confidence >= _LEAST
                    for mention in lexicon.find(string)
                )
                for string in strings
            ) / len(strings)
            measure = f"demo store, products with a {attribute} found"
            rows.append(Row(measure, name, [share] * len(context.seeds)))
    return rows


def _draw(by_type: Mapping[str, Scores], path: Path) -> None:
    figure = new_figure(8.0, 3.6)
    panel = figure.subplots()
    labels = ["", *LABELS]
    width = 0.8 / len(by_type)
    colours = [MUTED, COLOURS[0], COLOURS[1]]
    for place, (name, scores) in enumerate(by_type.items()):
        values = [scores[label].f1 if label in scores else 0.0 for label in labels]
        at = np.arange(len(labels)) + (place - (len(by_type) - 1) / 2) * width
        bars = panel.bar(at, values, width, label=name, color=colours[place % len(colours)])
        panel.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    panel.set_xticks(range(len(labels)), ["all", *LABELS.values()])
    panel.set_ylim(0, 1)
    panel.set_ylabel("F1")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, ncols=3)
    save(figure, path)
