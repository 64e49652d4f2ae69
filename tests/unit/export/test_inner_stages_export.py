"""Heads that read inner stages of the image tower pass the parity gate, and are quantised.

So does the late fusion; attention, the default, is what most tests of the export have.
"""

import json

import numpy as np
import onnxruntime
import pytest
import timm

from export.int8 import PICTURES, Recipe, write_int8
from export.quality import draw_products
from export.run import export_model
from newshelf.nn.encoder import ImageTower
from newshelf.nn.spec import read_spec
from tests.unit.export.catalogs import write_pictured_catalog
from tests.unit.export.tiny_checkpoint import tiny_spec, write_tiny_checkpoint


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The export of a checkpoint with late fusion, whose colour head reads two stages, by a share
    of 0.5.
    """
    base = tmp_path_factory.mktemp("inner")
    spec = tiny_spec(scorer=False)
    name = "test_efficientnet"
    image = spec.encoder.image.model_copy(
        update={
            "architecture": name,
            "features": timm.create_model(name, num_classes=0).num_features,
        }
    )
    image = ImageTower(image).eval().read_stages(image, (-4, -3), (1, 3))
    fusion = spec.encoder.fusion.model_copy(update={"kind": "late"})
    update = {"image": image, "inner_heads": {"color": 0.5}, "fusion": fusion}
    encoder = spec.encoder.model_copy(update=update)
    checkpoint = write_tiny_checkpoint(base / "model", spec.model_copy(update={"encoder": encoder}))
    export_model(checkpoint, base / "export")
    return base / "export"


def test_all_runtimes_agree(export):
    parity = json.loads((export / "parity.json").read_text())
    assert parity["passed"] is True
    assert {row["runtime"] for row in parity["cases"]} == {"onnxruntime", "torchscript", "openvino"}
    assert read_spec(export).encoder.inner_heads == {"color": 0.5}
    assert read_spec(export).encoder.fusion.kind == "late"


def test_the_quantised_tower_returns_the_stages_too(export, tmp_path):
    catalog = write_pictured_catalog(tmp_path / "shop")
    products = draw_products(catalog, read_spec(export).encoder, export / "tokenizer.json", 24)
    path = tmp_path / "encoder.int8.onnx"
    write_int8(export / "encoder.onnx", path, products, Recipe(PICTURES[0], None))
    image = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    inputs = {
        "image": image,
        "image_row": np.array([0, 1]),
        "input_ids": np.ones((1, 4), dtype=np.int64),
        "attention_mask": np.ones((1, 4), dtype=np.int64),
        "text_row": np.array([2]),
        "attributes": np.zeros((2, 9), dtype=np.int64),
    }
    logits = []
    for graph in (export / "encoder.onnx", path):
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        logits.append(session.run(["color_logits"], inputs)[0])
    assert np.abs(logits[0] - logits[1]).max() > 0
    np.testing.assert_allclose(logits[0], logits[1], atol=0.2)
