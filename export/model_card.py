"""Model card of a version: data, method, results by segment, exposure and limits.

(Mitchell et al. 2019, arXiv:1810.03993: Model cards for model reporting.)
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from newshelf.catalog.catalog import Catalog
from newshelf.catalog.schema import category_levels
from newshelf.config import Settings
from newshelf.files import read_json, write_json
from newshelf.nn.inputs import Tokenizer
from newshelf.nn.spec import ModelSpec, read_spec
from newshelf.report.page import Cell, Page, ReportTable, Section, save_page
from newshelf.serving.settings import MODEL_CARD, TOKENIZER, read_version

CARD_PAGE = "model-card.md"
_DATA = "data.json"
_CATEGORIES, _SCRIPTS = 12, 4
_MOST_TEXTS = 2000
"""Texts whose script is looked at."""
_LEARNING = ("image", "text", "attributes", "fusion", "tower", "finetune", "scorer", "training")
"""Sections of the settings that decide what a model learns."""
_FOLDS = ("random", "grouped")
_FEW, _LOW = 20, 0.9
"""Products of a category, and a share of readable products, below which a limit is stated."""


def write_data(export_dir: Path, catalog: Catalog) -> None:
    """Write counts of the catalogue into an export, for its model card.

    Products, texts and pictures, categories, scripts, events and baskets, and the period. A text
    that the export's tokenizer cannot read is counted apart.
    """
    texts = [text for product in catalog.products() if (text := product.text())]
    every = -(-len(texts) // _MOST_TEXTS) or 1
    scripts = Counter(map(_script, texts[::every]))
    kinds = (category_levels(one) for one in catalog.items["product_type"])
    categories = Counter(levels[0] if levels else "none" for levels in kinds)
    rows = range(len(catalog.items))
    found: dict[str, Any] = {
        "items": len(rows),
        "without_picture": sum(catalog.image_path(row) is None for row in rows),
        "texts": len(texts),
        "unreadable_texts": _unreadable(export_dir, texts),
        "categories": dict(categories.most_common(_CATEGORIES)),
        "scripts": {
            name: round(count / scripts.total(), 3) for name, count in scripts.most_common(_SCRIPTS)
        },
    }
    if catalog.baskets is not None:
        found["baskets"] = int(catalog.baskets["basket_id"].nunique())
    if catalog.events is not None:
        counts = catalog.events["event_type"].astype(str).value_counts()
        found["events"] = {str(name): int(count) for name, count in counts.items()}
        found["shoppers"] = int(catalog.events["user_id"].nunique())
        stamps = catalog.events["timestamp"]
        found["period"] = [
            datetime.fromtimestamp(int(stamp), UTC).date().isoformat()
            for stamp in (stamps.min(), stamps.max())
        ]
    write_json(export_dir / _DATA, found)


def _unreadable(export_dir: Path, texts: list[str]) -> int:
    text = read_spec(export_dir).encoder.text
    if text is None or not texts:
        return len(texts)
    tokenizer = Tokenizer(export_dir / TOKENIZER, text.max_tokens, text.pad_token_id)
    return sum(not row for row in tokenizer.tokens(texts))


def _script(text: str) -> str:
    """Return the script of most letters: ``Latin``, ``Cjk`` (Chinese), ``Thai``, …"""
    letters = (unicodedata.name(one, "").partition(" ")[0] for one in text if one.isalpha())
    found = Counter(letters).most_common(1)
    return found[0][0].capitalize() if found else "None"


def write_model_card(
    out: Path,
    export_dir: Path,
    checkpoint: Path,
    evaluation: Path,
    settings: Settings,
) -> Mapping[str, Any]:
    """Write ``model-card.md`` and ``model-card.json`` into ``out``; return the latter's content.

    ``evaluation`` is the folder of ``./run evaluate``; a report on another version is not used.

    Raises:
        WeightsError: ``export_dir`` holds no model.
    """
    spec, version = read_spec(export_dir), read_version(export_dir)
    data = read_json(export_dir / _DATA)
    report = evaluation / "report.json"
    results = read_json(report) if report.is_file() else None
    if results is not None and results["model_version"] != version:
        results = None
    card = {
        "format": 1,
        "catalog": spec.catalog_name,
        "version": version,
        "data": data,
        "method": _method(spec),
        "settings": dict(_changed_settings(settings)),
        "choices": read_json(checkpoint / "training.json").get("choices", []),
        "evaluation": results and {name: results[name] for name in ("splits", "segments")},
        "limits": list(_limits(data, spec, evaluated=results is not None)),
    }
    write_json(out / MODEL_CARD, card)
    save_page(_page(card), out / CARD_PAGE)
    return card


def _method(spec: ModelSpec) -> dict[str, str]:
    encoder = spec.encoder
    parts = {
        "pictures": encoder.image.architecture if encoder.image else "",
        "texts": str(encoder.text.architecture.get("_name_or_path") or "BERT")
        if encoder.text
        else "",
        "fusion": encoder.fusion.kind,
        "heads": ", ".join(encoder.labels),
        "scorer": f"Siamese, {spec.scorer.width} dimensions" if spec.scorer else "",
        "signals": ", ".join(f"{name} {weight:.2f}" for name, weight in spec.blend.weights.items())
        if spec.blend
        else "",
    }
    return {name: value or "none" for name, value in parts.items()}


def _changed_settings(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield name and value of the settings of training that differ from the defaults."""
    defaults = Settings().model_dump(mode="json")
    for section, values in settings.model_dump(mode="json").items():
        if section in _LEARNING and values != defaults[section]:
            for name, value in (values or {"enabled": False}).items():
                if value != (defaults[section] or {}).get(name):
                    yield f"{section}.{name}", value


def _limits(data: Mapping[str, Any], spec: ModelSpec, *, evaluated: bool) -> Iterator[str]:
    if not evaluated:
        yield "Not evaluated: nothing is known about the quality of this version's rankings."
    if spec.scorer is None:
        yield "Without events and baskets, products are ranked by content alone."
    items = data["items"]
    readable = data["texts"] - data["unreadable_texts"]
    for what, count in (("picture", items - data["without_picture"]), ("readable text", readable)):
        if count < _LOW * items:
            yield f"Only {count / items:.0%} of the products have a {what}."
    small = [name for name, count in data["categories"].items() if count < _FEW]
    if small:
        yield f"Categories with fewer than {_FEW} products: {', '.join(small)}."
    yield (
        "Results are measured on past behaviour, which the shop's former order influenced; a "
        "rollout measures what shoppers do with this version."
    )
    yield (
        "Fairness is that of products' exposure; nothing is known about persons, so differences "
        "between groups of shoppers are not measured."
    )


def _page(card: Mapping[str, Any]) -> Page:
    results = card["evaluation"]
    sections = [
        Section("Data", tables=[_table("Counts", card["data"])]),
        Section(
            "Method",
            tables=[
                _table(heading, card[name])
                for heading, name in (
                    ("Parts", "method"),
                    ("Settings that differ from the defaults", "settings"),
                )
                if card[name]
            ]
            + ([_choices(card["choices"])] if card["choices"] else []),
        ),
        Section(
            "Results",
            "Not evaluated: run ./run evaluate, then ./run archive."
            if results is None
            else "Held-out data; the splits with cold are of products without any interaction.",
            tables=[_results(results["splits"])] if results else [],
        ),
    ]
    if results:
        text = (
            "Recall of the model by segment. A segment is shown fairly if its share of the places "
            "is near its share of the products, or near what shoppers look for."
        )
        by_split: dict[str, list[Mapping[str, Any]]] = {}
        for one in results["segments"]:
            by_split.setdefault(one["split"], []).append(one)
        tables = [_segments(split, rows) for split, rows in by_split.items()]
        sections.append(Section("Segments and exposure", text, tables=tables))
    sections.append(Section("Limits", "\n".join(f"- {limit}" for limit in card["limits"])))
    return Page(f"Model card of {card['catalog']}", [f"version {card['version']}"], [], sections)


def _table(heading: str, values: Mapping[str, Any]) -> ReportTable:
    rows = [[name.replace("_", " "), _words(value)] for name, value in values.items()]
    return ReportTable(heading, ("", ""), rows, text_columns=[1])


def _choices(choices: list[Mapping[str, Any]]) -> ReportTable:
    header = ("job", "method", "random folds", "look-alikes", "", "taken because")
    rows: list[list[Cell | str]] = []
    for choice in choices:
        for row in choice["table"]:
            taken = row["name"] == choice["name"]
            found = [f"{fmean(row[kind]):.1%}" if kind in row else "" for kind in _FOLDS]
            why = choice["reason"] if taken else row.get("problem", "")
            rows.append([choice["job"], row["name"], *found, "taken" if taken else "", why])
    return ReportTable("Choices by validation", header, rows, text_columns=[1, 4, 5])


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " to ".join(map(_words, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _results(splits: list[Mapping[str, Any]]) -> ReportTable:
    rows: list[list[Cell | str]] = []
    for split in splits:
        k = str(split["k"][0])
        by_name = {ranker["name"]: ranker for ranker in split["rankers"]}
        model, best = by_name.get(split["model"]), by_name[split["best_baseline"]]
        if model is not None:
            cells = [
                Cell(f"{ranker[metric][k]:.3f}", _ends(ranker["intervals_95"].get(f"{name}@{k}")))
                for ranker, metric, name in (
                    (model, "recall", "Recall"),
                    (model, "ndcg", "NDCG"),
                    (best, "ndcg", "NDCG"),
                )
            ]
            gini, coverage = f"{model['gini'][k]:.2f}", f"{model['coverage'][k]:.0%}"
            rows.append(
                [split["name"], f"{split['cases']:,}", *cells, best["name"], gini, coverage]
            )
    header = (
        "split", "cases", "recall", "NDCG", "NDCG of the best baseline", "", "Gini", "coverage",
    )  # fmt: skip
    return ReportTable("Model and best baseline", header, rows, text_columns=[5])


def _segments(split: str, segments: list[Mapping[str, Any]]) -> ReportTable:
    header = ("segment", "cases", "recall", "share of the products", "share of the places")
    rows: list[list[Cell | str]] = [
        [
            f"{one['by']}: {one['name']}",
            f"{one['cases']:,}",
            Cell(f"{one['recall']:.3f}", _ends(one["interval"])),
            *("" if one[name] is None else f"{one[name]:.1%}" for name in ("of_items", "of_shown")),
        ]
        for one in segments
    ]
    return ReportTable(split, header, rows)


def _ends(interval: Iterable[float] | None) -> str:
    return " – ".join(f"{end:.3f}" for end in interval or ())
