"""What docs/api.md says is what the code does."""

import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from newshelf import errors
from newshelf.catalog.schema import Product
from newshelf.config import Limits
from newshelf.serving.protocol import TIMEOUT_HEADER, RawRequest
from newshelf.serving.schemas import (
    EncoderAnswer,
    ErrorBody,
    Filters,
    InstancesAnswer,
    RecommendRequest,
)
from newshelf.serving.settings import ServingSettings
from newshelf.serving.trace import METRICS
from tests.fake_predictors import FakeEncoderPredictor, FakeRecommenderPredictor, RecommendAnswer

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "api.md").read_text(encoding="utf-8")
GATEWAY = (DOCS / "gateway.md").read_text(encoding="utf-8")
ANSWERS = {
    "encoder": EncoderAnswer,
    "instances": InstancesAnswer,
    "recommender": RecommendAnswer,
    "error": ErrorBody,
}
CURLS = re.findall(r"^curl (?:(?!```).)*?predictions/\w+$", PAGE, flags=re.MULTILINE | re.DOTALL)


def cells(first: str) -> list[str]:
    """The cells of the table row that starts with ``first`` in backticks."""
    [row] = re.findall(rf"^\| `{re.escape(first)}` \|.*$", PAGE, flags=re.MULTILINE)
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("name", Limits.model_fields)
def test_every_limit_is_listed_with_its_default(name):
    assert cells(name)[1] == f"{getattr(Limits(), name):,}"


def test_every_error_of_a_request_is_listed_with_its_status():
    # The gateway's page lists what only the gateway answers.
    both = PAGE + GATEWAY
    listed = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", both, flags=re.MULTILINE))
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.NewshelfError)
    ]
    told = {
        (str(kind.http_status), kind.code)
        for kind in kinds
        if not issubclass(kind, errors.SetupError)
    }
    assert listed == told


@pytest.mark.parametrize("model", [Product, RecommendRequest, Filters])
def test_every_field_is_mentioned(model):
    missing = [name for name in model.model_fields if f"`{name}`" not in PAGE]
    assert missing == []


def test_every_metric_and_header_is_mentioned():
    assert [metric.name for metric in METRICS if f"`{metric.name}`" not in PAGE] == []
    assert f"`{TIMEOUT_HEADER}`" in PAGE
    assert f"the {ServingSettings().retrieve} allowed items" in PAGE


@pytest.mark.parametrize("kind", ANSWERS)
def test_example_answers_have_the_answers_shape(kind):
    [text] = re.findall(rf"```json answer={kind}\n(.*?)```", PAGE, flags=re.DOTALL)
    ANSWERS[kind].model_validate(json.loads(text))


@pytest.mark.parametrize("command", CURLS)
def test_example_requests_are_accepted(command):
    words = shlex.split(command.replace("\\\n", " "))
    ids = ("ring-7", "ring-12", *(f"item-{number}" for number in range(20)))
    fakes = {"encoder": FakeEncoderPredictor(), "recommender": FakeRecommenderPredictor(ids)}
    [answer] = fakes[words[-1].rsplit("/", 1)[1]].predict([request(words)])
    assert answer.status == 200, answer.body


def request(words: list[str]) -> RawRequest:
    """What curl would send; files are stand-ins."""
    options = list(itertools.pairwise(words))
    headers = dict(
        value.split(": ", 1) for name, value in options if name == "-H" and ": " in value
    )
    parts: dict[str, bytes] = {}
    for name, value in options:
        if name in ("-d", "--data-binary"):
            parts["body"] = b"picture" if value.startswith("@") else value.encode()
        elif name == "-F":
            field, text = value.split("=", 1)
            parts[field] = b"picture" if text.startswith("@") else text.encode()
            headers["Content-Type"] = "multipart/form-data"
    headers.pop(TIMEOUT_HEADER, None)
    return RawRequest.from_http(parts, headers, "r1")


def test_there_are_examples():
    assert len(CURLS) == 7
