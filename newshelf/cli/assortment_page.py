"""Sections of the page that ``./run analyse`` writes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from safetensors.numpy import load_file

from newshelf.attributes.build import FACTS_FILE, read_facts
from newshelf.catalog.catalog import Catalog
from newshelf.errors import BadPicture, SetupError, TooLarge
from newshelf.evaluation import assortment
from newshelf.evaluation.funnel import rate
from newshelf.files import read_json
from newshelf.nn.checkpoint import KNOWLEDGE_FOLDER, load_checkpoint
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.pipeline.workspace import Workspace
from newshelf.report.page import Picture, ReportTable, Section
from newshelf.report.plots import Line, Tile, draw_lines, draw_tiles
from newshelf.training.features import feature_table

_TILES, _NEAREST = 8, 12
_SHARED = ("material", "color")
_VALUES = (*_SHARED, "style")
_UNKNOWN = "Unknown: too little data."


def sections(opened: Workspace, read: Catalog, folder: Path, console: Console) -> Iterator[Section]:
    """Yield clusters, trends and gaps; pictures are written into ``folder``."""
    ids = [*read.items["id"]]
    if read_json(opened.checkpoint / "ids.json") != ids:
        raise SetupError(f"{opened.checkpoint} has other products than the catalogue: train again")
    facts = read_facts(opened.checkpoint / KNOWLEDGE_FOLDER / FACTS_FILE).to_pandas()
    values = assortment.main_values(facts, ids)
    rows = load_file(opened.checkpoint / "embeddings.safetensors")["embeddings"]
    counts = None if read.events is None else assortment.interest(read.events, ids)
    found = assortment.find_clusters(rows, track=partial(track, console=console))
    yield _clusters(read, rows, values, counts, found, folder)
    if counts is None:
        yield Section("Gaps", verdict="Unknown: the catalogue has no events.")
        return
    stock = read.items["availability"].ne("out_of_stock").to_numpy()
    yield _trends(read.events, values.set_axis(ids), folder)
    for name in _VALUES:
        yield _gaps(name, values, counts["shoppers"].to_numpy(), stock)


def _clusters(
    read: Catalog,
    embeddings: np.ndarray,
    values: pd.DataFrame,
    counts: pd.DataFrame | None,
    found: assortment.Clusters | None,
    folder: Path,
) -> Section:
    if found is None:
        return Section("Clusters", verdict=_UNKNOWN)
    rows, pictures = [], []
    for number in range(int(found.labels.max()) + 1):
        inside = found.labels == number
        members, name = np.flatnonzero(inside), assortment.cluster_name(values, inside)
        near, _ = assortment.nearest(embeddings[inside], embeddings[inside].mean(0), _TILES)
        tiles = [_tile(read, row) for row in members[near]]
        draw_tiles([tiles], folder / f"{number}.jpg")
        pictures.append(Picture(f"{number}.jpg", f"{number + 1}. {name}"))
        tops = [values[name][inside].value_counts(normalize=True)[:3] for name in _SHARED]
        shares = [", ".join(f"{name} {share:.0%}" for name, share in top.items()) for top in tops]
        rows.append([f"{number + 1}. {name}", f"{inside.sum():,}", *shares, *["unknown"] * 3])
        if counts is not None:
            views, bought = (int(counts[name][inside].sum()) for name in ("view", "purchase"))
            rows[-1][-3:-1] = [f"{count / inside.sum():.2f}" for count in (views, bought)]
            if share := rate(bought, views):
                rows[-1][-1] = "{:.1%} ({:.1%} … {:.1%})".format(share.value, *share.interval)
    header = ("", "products", "material", "colour", "views each", "purchases each", "per view")
    verdict = f"Silhouette {found.silhouette:.2f}; data without clusters {found.by_chance:.2f}."
    if not found.clear:
        verdict += " No clear clusters: one cloud of products, divided for overview only."
    table = ReportTable("", header, rows, text_columns=(2, 3))
    return Section("Clusters", "Named by over-represented values.", [table], verdict, pictures)


def _gaps(attribute: str, values: pd.DataFrame, counts: np.ndarray, stock: np.ndarray) -> Section:
    both = assortment.find_gaps(values, attribute, counts, stock)
    text = (
        "Few in stock, and more interested shoppers than type and value predict; and combinations "
        "that were never offered, with the interest that type and value predict for each product. "
        "That new products find either interest is an extrapolation."
    )
    title = f"Gaps by type and {attribute}"
    if both is None:
        return Section(title, text, verdict=_UNKNOWN)
    tables = []
    for heading, found in zip(("Few in stock", "Not offered"), both, strict=True):
        rows = [
            [f"{x:.1f}" if isinstance(x, float) else str(x) for x in row] for row in found.values
        ]
        note = "" if rows else "None found."
        tables.append(ReportTable(heading, [*found], rows, text_columns=(1,), note=note))
    return Section(title, text, tables)


def _trends(events: pd.DataFrame, values: pd.DataFrame, folder: Path) -> Section:
    """Return the shares by week; ``values`` are indexed by product id."""
    panels = {}
    for name in _VALUES:
        if (found := assortment.weekly_shares(events, values[name])) is not None:
            shares, counts = found
            reach = 1.96 * np.sqrt(shares * (1 - shares)).div(np.sqrt(counts), axis=0)
            panels[name] = {
                str(value): Line([*shares.index], [*shares[value]], [*reach[value]])
                for value in shares
            }
    if not panels:
        return Section("Trends", verdict=_UNKNOWN)
    label = "weeks before the newest event"
    draw_lines(
        panels, folder / "trends.png", xlabel=label, ylabel="share of interest", percent=True
    )
    caption = "Shares of the interest of each week, with bands of 95 %; a shopper counts once."
    return Section("Trends", pictures=[Picture("trends.png", caption)])


def near_section(
    opened: Workspace, read: Catalog, near: Path, folder: Path, console: Console
) -> Section:
    """Return the products whose pictures are nearest to a picture, by the image tower."""
    encoder = load_checkpoint(opened.checkpoint).encoder
    if (spec := encoder.spec.image) is None or (tower := encoder.image_tower) is None:
        raise SetupError("--near needs a model with an image tower: train on pictures")
    try:
        pixels = decode_picture(near.read_bytes(), spec)
    except (OSError, BadPicture, TooLarge) as error:
        raise SetupError(f"--near {near} cannot be read as a picture: {error}") from error
    table = feature_table(read, encoder, None, opened.features, console)
    with torch.inference_mode():
        query = tower(torch.from_numpy(prepare_pictures([pixels], spec)))[0].numpy()
    known = np.flatnonzero(table.image_present.numpy())
    places, cosines = assortment.nearest(table.image.numpy()[known], query, _NEAREST)
    products = read.items.iloc[known[places]]
    cells = zip(products["title"].astype(str), products["id"], cosines, strict=True)
    rows = [(title, item, f"{cosine:.3f}") for title, item, cosine in cells]
    tiles = [Tile(near, near.name), *(_tile(read, row) for row in known[places][:_TILES])]
    draw_tiles([tiles], folder / "near.jpg")
    picture = Picture("near.jpg", "The given picture, then the nearest products.")
    shown = ReportTable("", ("product", "id", "cosine"), rows)
    return Section("Near the picture", tables=[shown], pictures=[picture])


def _tile(read: Catalog, row: int) -> Tile:
    return Tile(read.image_path(row), str(read.items["title"].fillna("").iloc[row]))
