"""The encoder over HTTP: every form of a request, and what it answers."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from newshelf.catalog.catalog import Catalog
from newshelf.nn.spec import ModelSpec, read_spec
from newshelf.pipeline.workspace import Workspace
from newshelf.serving.settings import read_version
from tests.e2e.products import (
    ENCODER,
    base64_of,
    check_embedding,
    form_of,
    picture_of,
    product_of,
    saved,
    whole_row,
)

Embeddings = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def row(catalog: Catalog) -> int:
    return whole_row(catalog)


@pytest.fixture(scope="module")
def product(catalog: Catalog, row: int) -> dict[str, object]:
    return product_of(catalog, row)


@pytest.fixture(scope="module")
def picture(catalog: Catalog, row: int) -> bytes:
    return picture_of(catalog, row)


@pytest.fixture(scope="module")
def spec(workspace: Workspace) -> ModelSpec:
    return read_spec(workspace.export)


def embedded(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return check_embedding(response.json()["embedding"])


def bare(http: httpx.Client, data: bytes, kind: str | None) -> np.ndarray:
    headers = {} if kind is None else {"Content-Type": kind}
    return embedded(http.post(ENCODER, content=data, headers=headers))


def test_a_product_has_one_embedding_in_every_form_and_it_is_the_catalogues(
    http: httpx.Client,
    product: dict[str, object],
    picture: bytes,
    embeddings: Embeddings,
) -> None:
    digits = base64_of(picture)
    lines = "\n".join(digits[at : at + 76] for at in range(0, len(digits), 76))
    as_json = [
        {**product, "image": text} for text in (digits, f"data:image/jpeg;base64,{digits}", lines)
    ]
    several = http.post(ENCODER, json={"instances": [as_json[0], {"title": "other"}]}).json()
    file = ("ring.jpg", picture, "image/jpeg")
    form = http.post(ENCODER, data=form_of(product), files={"image": file})
    # Without a file name, the part's bytes are the same.
    nameless = http.post(ENCODER, data=form_of(product), files={"image": (None, picture)})
    sent = [http.post(ENCODER, json=body) for body in as_json]
    every = {
        **{f"JSON {at}": embedded(response) for at, response in enumerate(sent)},
        "instances": check_embedding(several["predictions"][0]["embedding"]),
        "form": embedded(form),
        "form without a file name": embedded(nameless),
    }
    expected = embeddings[str(product["id"])]
    for name, embedding in every.items():
        assert embedding @ expected > 0.999, name
        np.testing.assert_allclose(embedding, every["JSON 0"], atol=1e-5, err_msg=name)
    others = [vector for item, vector in embeddings.items() if item != product["id"]]
    assert max(every["form"] @ other for other in others) < every["form"] @ expected


def test_a_picture_alone_has_one_embedding_in_every_format(
    http: httpx.Client, picture: bytes
) -> None:
    pixels = Image.open(io.BytesIO(picture)).convert("RGB")
    png, webp = saved(pixels, "PNG"), saved(pixels, "WEBP", lossless=True)
    every = {
        "image/jpeg": bare(http, picture, "image/jpeg"),
        "image/jpg; with a parameter": bare(http, picture, "image/jpg; q=1"),
        "image/png": bare(http, png, "image/png"),
        "image/webp": bare(http, webp, "image/webp"),
        "JPEG without a content type": bare(http, picture, None),
        "WebP as octet-stream": bare(http, webp, "application/octet-stream"),
        "JSON": embedded(http.post(ENCODER, json={"image": base64_of(png)})),
        "form": embedded(http.post(ENCODER, files={"image": ("a", webp)})),
    }
    for name, embedding in every.items():
        np.testing.assert_allclose(embedding, every["image/jpeg"], atol=1e-5, err_msg=name)


def test_title_alone_picture_alone_and_both_are_three_embeddings(
    http: httpx.Client, product: dict[str, object], picture: bytes
) -> None:
    title = {"title": product["title"]}
    image = {"image": base64_of(picture)}
    vectors = [embedded(http.post(ENCODER, json=body)) for body in (title, image, title | image)]
    cosines = np.array(vectors) @ np.array(vectors).T
    assert cosines[np.triu_indices(3, 1)].max() < 0.9999
    described = embedded(http.post(ENCODER, json={"description": product["description"]}))
    assert described @ vectors[0] < 0.9999


def test_labels_are_the_models_classes_and_the_version_is_the_archives(
    http: httpx.Client,
    product: dict[str, object],
    picture: bytes,
    spec: ModelSpec,
    workspace: Workspace,
) -> None:
    answer = http.post(ENCODER, json={**product, "image": base64_of(picture)}).json()
    assert set(answer) == {"embedding", "labels", "model_version"}
    assert answer["model_version"] == read_version(workspace.export)
    classes = {head: names for head, names in spec.encoder.labels.items() if names}
    assert set(answer["labels"]) == set(classes)
    assert {"target_type", "color"} <= set(classes)
    for head, label in answer["labels"].items():
        assert label["value"] in classes[head]
        # The likeliest of several has at least its equal share.
        assert 1 / len(classes[head]) <= label["score"] <= 1


def test_instances_are_answered_in_order_and_fail_one_by_one(
    http: httpx.Client, picture: bytes
) -> None:
    bodies = [
        {"title": "jade ring"},
        {"title": 7},
        {"image": base64_of(picture)},
        {"image": base64_of(picture[:300])},
    ]
    response = http.post(ENCODER, json={"instances": bodies})
    assert response.status_code == 200
    first, mistyped, third, damaged = response.json()["predictions"]
    for answer, body in ((first, bodies[0]), (third, bodies[2])):
        alone = embedded(http.post(ENCODER, json=body))
        np.testing.assert_allclose(answer["embedding"], alone, atol=1e-5)
    errors = [(part["error"]["status"], part["error"]["field"]) for part in (mistyped, damaged)]
    assert errors == [(422, "instances[1].title"), (422, "instances[3].image")]


def test_when_no_instance_can_be_encoded_the_request_fails(http: httpx.Client) -> None:
    response = http.post(ENCODER, json={"instances": [{"title": " "}, {"title": 7}]})
    assert response.status_code == 422
    assert response.json()["field"] == "instances[0]"
