"""The drawn sample: deterministic, visible, and with a taste that crosses categories."""

import hashlib
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from newshelf.attributes.lexicon import packaged_lexicon
from newshelf.catalog.catalog import read_catalog
from newshelf.errors import SettingsError
from newshelf.sample.build import draw_product, draw_sample, simulate_events
from newshelf.sample.palette import COLORS, MATERIALS, SHOP, STYLES
from newshelf.sample.products import CATEGORIES, PRODUCT_TYPES, Blueprint, item_frame, plan_products


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "catalog"
    draw_sample(folder, seed=3, products=60, shoppers=40)
    return folder


@pytest.fixture(scope="module")
def blueprints() -> list[Blueprint]:
    return plan_products(1200, 3)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_sample_passes_its_own_checks(sample):
    catalog = read_catalog(sample, strict=True)
    assert len(catalog.items) == 60
    kinds = set(catalog.items["product_type"].str.split(" > ").str[1])
    assert kinds == set(PRODUCT_TYPES)
    assert catalog.events["user_id"].nunique() == 40
    with Image.open(catalog.image_path(0)) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (224, 224), "RGB")


def test_the_same_seed_gives_the_same_bytes_and_replaces_the_folder_whole(sample, tmp_path):
    (tmp_path / "again" / "images").mkdir(parents=True)
    (tmp_path / "again" / "images" / "old.jpg").touch()
    draw_sample(tmp_path / "again", seed=3, products=60, shoppers=40)
    assert digests(tmp_path / "again") == digests(sample)


def test_another_seed_gives_other_products_pictures_and_shoppers(sample, tmp_path):
    (tmp_path / "images").mkdir()
    blueprints = plan_products(60, 3)
    assert blueprints != plan_products(60, 4)
    for blueprint in blueprints[:4]:
        draw_product(blueprint, tmp_path, 4)
        ours = (sample / blueprint.image_link).read_bytes()
        assert ours != (tmp_path / blueprint.image_link).read_bytes()
    assert not simulate_events(blueprints, 5, 3).equals(simulate_events(blueprints, 5, 4))


def test_workers_draw_what_one_process_draws(tmp_path):
    draw_sample(tmp_path / "pool", seed=3, products=70, shoppers=2)
    blueprint = plan_products(70, 3)[69]
    (tmp_path / "images").mkdir()
    draw_product(blueprint, tmp_path, 3)
    alone = (tmp_path / blueprint.image_link).read_bytes()
    assert alone == (tmp_path / "pool" / blueprint.image_link).read_bytes()


@pytest.mark.parametrize("wrong", [{"products": 59}, {"shoppers": 0}])
def test_too_small_a_sample_is_refused(tmp_path, wrong):
    with pytest.raises(SettingsError, match="at least 60 products"):
        draw_sample(tmp_path / "catalog", **wrong)
    assert not (tmp_path / "catalog").exists()


def picture_of(blueprint: Blueprint, folder: Path) -> np.ndarray:
    draw_product(blueprint, folder, 3)
    with Image.open(folder / blueprint.image_link) as picture:
        return np.asarray(picture, dtype=np.float64)


@pytest.mark.parametrize("kind", list(PRODUCT_TYPES))
def test_each_type_shows_its_color_in_every_style(kind, tmp_path):
    (tmp_path / "images").mkdir()
    jewel = kind in CATEGORIES["Jewellery"]
    first, *_ = SHOP["assortments"][PRODUCT_TYPES[kind].materials].split(", ")
    material, color = ("Ruby", "Red") if jewel else (first, "Blue")
    pictures = []
    for style in STYLES:
        pixels = picture_of(Blueprint(1, kind, style, color, material, False), tmp_path)
        corner = pixels[:8, :8].mean(axis=(0, 1))
        assert np.ptp(corner) < 30, "the backdrop is nearly grey"
        drawn = np.abs(pixels - corner).max(axis=2) > 60
        assert 0.01 < drawn.mean() < 0.8
        # Red or blue stands out by its own channel, which no backdrop does.
        own, others = (0, [1, 2]) if jewel else (2, [0, 1])
        colored = pixels[..., own] > pixels[..., others].max(axis=2) + 30
        share = (colored & drawn).sum() / drawn.sum()
        assert share > (0.015 if jewel else 0.12), f"{style} {kind} hardly shows its colour"
        assert colored[:8].mean() < 0.01
        pictures.append(pixels)
    for one, another in combinations(pictures, 2):
        assert np.abs(one - another).mean() > 1


def test_a_color_decides_the_picture(blueprints, tmp_path):
    (tmp_path / "images").mkdir()
    dress = replace(blueprints[0], kind="Dresses", style="minimal", material="Cotton")
    for name in ("Red", "Green", "Navy", "Yellow"):
        middle = picture_of(replace(dress, color=name), tmp_path)[100:150, 100:124].mean(
            axis=(0, 1)
        )
        nearest = min(COLORS, key=lambda other: np.abs(middle - COLORS[other].rgb).sum())
        assert COLORS[nearest].family == COLORS[name].family


def test_new_products_have_no_event(blueprints):
    events = simulate_events(blueprints, 150, 3)
    new = {blueprint.item_id for blueprint in blueprints if blueprint.is_new}
    assert len(new) == round(0.12 * len(blueprints))
    assert not new & set(events["item_id"])
    frame = item_frame(blueprints, ["Gold"] * len(blueprints), 3)
    is_new = frame["id"].isin(new)
    assert frame["created_at"][is_new].min() > frame["created_at"][~is_new].max()
    assert events["timestamp"].min() > frame["created_at"][~is_new].max()


def test_the_table_is_as_documented(blueprints):
    frame = item_frame(blueprints, ["Gold"] * len(blueprints), 3)
    shares = frame["product_type"].str.split(" > ").str[0].value_counts(normalize=True)
    assert shares["Clothing"] == pytest.approx(0.60, abs=0.01)
    assert shares["Jewellery"] == pytest.approx(0.18, abs=0.01)
    for column in ("color", "material"):
        assert 0.06 < frame[column].isna().mean() < 0.14
    assert 0.02 < (frame["availability"] == "out_of_stock").mean() < 0.09
    assert frame["price"].gt(0).all()


def test_no_single_word_gives_a_style_away(blueprints):
    frame = item_frame(blueprints, ["Gold"] * len(blueprints), 3)
    texts = (frame["title"] + " " + frame["description"]).str.lower()
    words = [set(re.findall(r"[a-z-]{4,}", text)) for text in texts]
    overall = Counter(word for row in words for word in row)
    for style in STYLES:
        rows = [row for row, b in zip(words, blueprints, strict=True) if b.style == style]
        for word, count in Counter(word for row in rows for word in row).items():
            telling = count / overall[word] > 0.6
            assert not telling or count / len(rows) < 0.3, f"{word!r} is {style}"


def taste_shares(events: pd.DataFrame, trait: pd.Series, category: pd.Series, name: str):
    rows = events[events["item_id"].map(category) == name].drop_duplicates(["user_id", "item_id"])
    counts = pd.crosstab(rows["user_id"], rows["item_id"].map(trait))
    return counts[counts.sum(axis=1) >= 3].pipe(lambda table: table.div(table.sum(axis=1), axis=0))


def crossing(events, trait, category, *, shuffled: bool = False) -> float:
    """Correlation of the shoppers' shares of a trait in clothing and in jewellery."""
    clothing = taste_shares(events, trait, category, "Clothing")
    jewellery = taste_shares(events, trait, category, "Jewellery")
    users = clothing.index.intersection(jewellery.index)
    assert len(users) > 50
    columns = clothing.columns.intersection(jewellery.columns)
    left = clothing.loc[users, columns].to_numpy()
    right = jewellery.loc[users, columns].to_numpy()
    if shuffled:
        right = np.roll(right, 7, axis=0)
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    return float((left * right).sum() / np.sqrt((left**2).sum() * (right**2).sum()))


def test_taste_crosses_categories(blueprints):
    events = simulate_events(blueprints, 400, 3)
    ids = [blueprint.item_id for blueprint in blueprints]
    category = pd.Series([blueprint.type.category for blueprint in blueprints], ids)
    style = pd.Series([blueprint.style for blueprint in blueprints], ids)
    color = pd.Series([COLORS[blueprint.color].family for blueprint in blueprints], ids)
    material = pd.Series([MATERIALS[b.material].family for b in blueprints], ids)
    assert crossing(events, style, category) > 0.6
    assert crossing(events, color, category) > 0.4
    assert crossing(events, material, category) > 0.15
    for trait in (style, color, material):
        assert abs(crossing(events, trait, category, shuffled=True)) < 0.15


def test_shoppers_see_enough_and_the_funnel_narrows(blueprints):
    events = simulate_events(blueprints, 200, 3)
    assert 12 <= events.groupby("user_id")["item_id"].nunique().median() <= 20
    counts = events["event_type"].value_counts()
    assert counts["view"] > counts["click"] > counts["cart"] > counts["purchase"] > 0
    assert counts["favourite"] > 0
    assert events["timestamp"].is_monotonic_increasing
    assert events["timestamp"].max() - events["timestamp"].min() < 91 * 86_400


@pytest.fixture(scope="module")
def both(blueprints) -> tuple[pd.DataFrame, pd.DataFrame]:
    metals = [["Gold", "Rose Gold", "Black Steel"][b.number % 3] for b in blueprints]
    english, chinese = (item_frame(blueprints, metals, 3, language) for language in ("en", "zh"))
    return english, chinese


def test_the_chinese_shop_has_the_same_products(both):
    english, chinese = both
    for name in ("id", "brand", "price", "image_link", "availability", "created_at"):
        assert chinese[name].equals(english[name])
    for name in ("product_type", "color", "material"):
        assert chinese[name].isna().equals(english[name].isna())
        pairs = pd.concat([chinese[name], english[name]], axis=1).dropna().drop_duplicates()
        assert pairs.nunique().tolist() == [len(pairs)] * 2, "each value has one name"


def test_chinese_titles_have_the_shape_of_english_ones(both):
    english, chinese = both
    assert not chinese["title"].str.contains(r"\s|[{}]").any()
    for column in ("title", "description", "product_type"):
        assert chinese[column].str.contains(r"[\u4e00-\u9fff]").all()
    assert abs(chinese["title"].nunique() / english["title"].nunique() - 1) < 0.1
    red = english["title"].str.contains("Scarlet|scarlet")
    assert red.any()
    assert chinese["title"][red].str.contains("猩红色").all()


def test_each_language_has_as_many_words():
    english, chinese = SHOP["wording"]["en"], SHOP["wording"]["zh"]
    tables = [COLORS[name].words for name in COLORS] + [MATERIALS[name].words for name in MATERIALS]
    tables += [kind.nouns for kind in PRODUCT_TYPES.values()]
    tables += [{"en": english["styles"][s], "zh": chinese["styles"][s]} for s in STYLES]
    tables.append({"en": english["made"], "zh": chinese["made"]})
    for words in tables:
        assert len(set(words["zh"].split(", "))) == len(words["en"].split(", ")), words
    for one, other in ((english["hints"], chinese["hints"]), (english, chinese)):
        for name, sentences in one.items():
            assert not isinstance(sentences, list) or len(sentences) == len(other[name])


def test_values_have_one_meaning_in_both_languages():
    lexicon = packaged_lexicon()
    for attribute, table in (("color", COLORS), ("material", MATERIALS)):
        for name, row in table.items():
            chinese = row.words["zh"].split(", ")[0]
            assert lexicon.canonical(attribute, chinese) == lexicon.canonical(attribute, name)
