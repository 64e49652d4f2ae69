"""Archives of all runtimes give the same embeddings and rankings."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from export.archive import archive
from newshelf.catalog.catalog import Catalog
from newshelf.cli.pipeline import settings_from
from newshelf.pipeline.workspace import Workspace
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import Predictor, RawRequest
from newshelf.serving.recommender_predictor import load_recommender_predictor
from newshelf.serving.settings import ServingSettings
from tests.e2e.products import JSON, RECOMMENDER, base64_of, picture_of, product_of

RUNTIMES = ("onnxruntime", "torchscript", "openvino")
CLOSE = 2e-3
"""Scores this near to each other may change places."""


@pytest.fixture(scope="module")
def predictors(
    workspace: Workspace, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Predictor]:
    """From archives built and unpacked, by runtime and model."""
    loaded: dict[tuple[str, str], Predictor] = {}
    load = {"encoder": load_encoder_predictor, "recommender": load_recommender_predictor}
    for runtime in RUNTIMES:
        home = tmp_path_factory.mktemp(runtime)
        for mar in archive(workspace.export, settings_from(settings_file, runtime), home / "store"):
            model = mar.name.partition("-")[0]
            with zipfile.ZipFile(mar) as file:
                file.extractall(home / model)
            settings = ServingSettings(runtime=runtime)
            loaded[runtime, model] = load[model](home / model, settings=settings)
    return loaded


def answers(predictor: Predictor, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [RawRequest({"body": json.dumps(body).encode()}, JSON) for body in bodies]
    predicted = predictor.predict(rows)
    assert {answer.status for answer in predicted} == {200}
    return [json.loads(answer.body) for answer in predicted]


def check_same_ranking(one: list[Mapping[str, Any]], other: list[Mapping[str, Any]]) -> None:
    """Same items, sources and scores; the same order but for those that score alike."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left["source"] == right["source"]
        assert left["score"] == pytest.approx(right["score"], abs=CLOSE)
    scores = {item["id"]: item["score"] for item in other}
    for item in one:
        assert item["score"] == pytest.approx(scores.get(item["id"], item["score"]), abs=CLOSE)
    missing = [item["score"] for item in one if item["id"] not in scores]
    # Only at the end, where the cut at k is between equals.
    assert all(score <= one[-1]["score"] + CLOSE for score in missing)


@pytest.fixture(scope="module")
def questions(catalog: Catalog) -> list[dict[str, Any]]:
    """Many histories, short and long, and each other part of a request."""
    ids = list(catalog.items["id"])
    rng = np.random.default_rng(0)
    histories = [
        [ids[row] for row in rng.choice(len(ids), size=1 + number % 12, replace=False)]
        for number in range(30)
    ]
    inline = [
        {**product_of(catalog, row), "image": base64_of(picture_of(catalog, row))}
        for row in (4, 40, 80)
    ]
    renamed = [{**product, "id": f"new-{at}"} for at, product in enumerate(inline)]
    return [
        *({"history": history, "k": 15} for history in histories),
        *({"history": history, "candidates": ids[::3]} for history in histories[:5]),
        *({"history": history, "diversity": 0.4} for history in histories[5:10]),
        {"history": histories[9], "filters": {"product_type": "Jewellery"}, "k": 100},
        {"history": [*histories[3], *inline]},
        {"history": inline[:1], "candidates": [*renamed[1:], {"id": "t", "title": "jade ring"}]},
        {"history": []},
    ]


@pytest.mark.parametrize("runtime", RUNTIMES[1:])
def test_rankings_are_the_same(
    predictors: dict[tuple[str, str], Predictor], questions: list[dict[str, Any]], runtime: str
) -> None:
    one, other = (
        answers(predictors[name, "recommender"], questions) for name in (RUNTIMES[0], runtime)
    )
    same = 0
    for left, right in zip(one, other, strict=True):
        check_same_ranking(left["items"], right["items"])
        same += [item["id"] for item in left["items"]] == [item["id"] for item in right["items"]]
    # Near ties are rare.
    assert same >= 0.9 * len(questions)
    assert len({tuple(item["id"] for item in answer["items"]) for answer in one}) > 30


def test_the_server_ranks_as_the_unpacked_archive(
    predictors: dict[tuple[str, str], Predictor],
    questions: list[dict[str, Any]],
    http: httpx.Client,
) -> None:
    some = questions[::6]
    for question, expected in zip(
        some, answers(predictors["onnxruntime", "recommender"], some), strict=True
    ):
        check_same_ranking(http.post(RECOMMENDER, json=question).json()["items"], expected["items"])


@pytest.mark.parametrize("runtime", RUNTIMES[1:])
def test_embeddings_and_labels_are_the_same(
    predictors: dict[tuple[str, str], Predictor], catalog: Catalog, runtime: str
) -> None:
    whole = [
        {**product_of(catalog, row), "image": base64_of(picture_of(catalog, row))}
        for row in (0, 50, 100)
    ]
    bodies = [*whole, {"title": "jade ring"}, {"image": whole[1]["image"]}]
    one, other = (answers(predictors[name, "encoder"], bodies) for name in (RUNTIMES[0], runtime))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left["embedding"], right["embedding"], atol=1e-4)
        assert left["labels"].keys() == right["labels"].keys()
        for head, label in left["labels"].items():
            assert label["score"] == pytest.approx(right["labels"][head]["score"], abs=1e-3)
        assert left["model_version"] == right["model_version"]
