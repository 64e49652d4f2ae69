"""Archives as built, unpacked and run by a process that knows nothing but them."""

from pathlib import Path

import numpy as np
import pytest

from newshelf.serving.settings import read_version

RUNTIMES = ("onnxruntime", "torchscript")
REQUESTS = {
    "encoder": {"title": "green lamp", "product_type": "Home > Lamps", "price": 12.5},
    "recommender": {"history": ["i1", {"title": "red ring"}], "k": 3, "explain": True},
}


@pytest.mark.parametrize("model", ["encoder", "recommender"])
def test_archived_code_answers_from_the_archive_alone(unpacked, drive, model):
    answers = []
    for runtime in RUNTIMES:
        folder = unpacked(runtime, model)
        told = drive(folder, model, REQUESTS[model], "not JSON")
        (good, answer), (bad, error) = told["answers"]
        assert (good, bad, error["code"]) == (200, 400, "not_json")
        assert answer["model_version"] == read_version(folder)
        assert "newshelf_inference_seconds" in told["metrics"]
        check_modules(told["modules"], folder, f"{model}_handler")
        answers.append(answer)
    check = {"encoder": check_encodings, "recommender": check_rankings}[model]
    check(*answers)


def check_modules(modules, folder, handler):
    roots = ("newshelf", "handlers", handler)
    ours = {n: path for n, path in modules.items() if n.split(".")[0] in roots}
    assert {"newshelf", "newshelf.serving.runtimes.base", "handlers.adapter", handler} <= set(ours)
    assert all(Path(path).is_relative_to(folder) for path in ours.values())
    training = {"newshelf.training", "newshelf.evaluation", "newshelf.catalog.catalog"}
    heavy = {"timm", "transformers", "onnx", "onnxscript"}
    assert not set(modules) & {"export", "model_archiver", *training, *heavy}
    # The seam to TorchServe: the kinds of metrics, the protocol that a worker reads, and what
    # importing them brings along.
    of_server = {name.split(".")[1] for name in modules if name.startswith("ts.")}
    assert of_server <= {"metrics", "protocol", "utils", "version"}


def check_encodings(onnx, script):
    assert np.linalg.norm(onnx["embedding"]) == pytest.approx(1, abs=1e-5)
    assert set(onnx["labels"]) == {"target_type", "color"}
    np.testing.assert_allclose(onnx["embedding"], script["embedding"], atol=1e-5)


def check_rankings(onnx, script):
    assert [item["source"] for item in onnx["items"]] == ["model"] * 3
    assert "i1" not in {item["id"] for item in onnx["items"]}
    assert [i["id"] for i in onnx["items"]] == [i["id"] for i in script["items"]]
