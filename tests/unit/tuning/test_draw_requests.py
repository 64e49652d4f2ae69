import base64
import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from newshelf.catalog.catalog import Catalog, read_catalog
from newshelf.errors import CatalogError
from newshelf.sample.build import draw_sample
from newshelf.tuning.load import draw_requests


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("shops") / "shop"
    draw_sample(folder, products=60, shoppers=20)
    return read_catalog(folder)


def test_products_are_drawn_with_title_and_picture_and_none_twice(catalog: Catalog) -> None:
    requests = draw_requests("encoder", catalog, 150)
    assert {request.path for request in requests} == {"/predictions/encoder"}
    bodies = [json.loads(request.body) for request in requests]
    pictures = [base64.b64decode(body["image"]) for body in bodies]
    assert len(set(pictures)) == len({body["title"] for body in bodies}) == 150
    for picture in pictures[:5]:
        with Image.open(io.BytesIO(picture)) as opened:
            opened.load()


def test_histories_are_of_the_catalogues_ids(catalog: Catalog) -> None:
    ids = set(catalog.items["id"])
    bodies = [json.loads(one.body) for one in draw_requests("recommender", catalog, 50)]
    assert all(set(body["history"]) <= ids for body in bodies)
    lengths = {len(body["history"]) for body in bodies}
    assert min(lengths) >= 1
    assert max(lengths) <= 20
    assert len(lengths) > 5


def test_equal_seeds_draw_equal_requests(catalog: Catalog) -> None:
    assert draw_requests("encoder", catalog, 5) == draw_requests("encoder", catalog, 5)
    assert draw_requests("encoder", catalog, 5) != draw_requests("encoder", catalog, 5, seed=8)


def test_a_catalogue_without_content_is_refused(catalog: Catalog) -> None:
    empty = replace(catalog, items=catalog.items.assign(title=None, image_link=None))
    with pytest.raises(CatalogError, match="a title or a readable picture"):
        draw_requests("encoder", empty, 1)
