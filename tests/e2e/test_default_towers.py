"""The towers that a first ``./run serve`` takes are trained, exported, and encode the catalogue.

The shops of the other tests have small ones.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from newshelf.catalog.catalog import Catalog
from newshelf.cli.pipeline import make_jobs
from newshelf.config import FinetuneSettings, ScorerSettings, Settings
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.nn.weights import PACKAGED_IMAGE
from newshelf.pipeline.stages import bring_up_to_date, plan_stages
from newshelf.pipeline.workspace import open_workspace
from newshelf.serving.encoder_predictor import load_encoder_predictor
from newshelf.serving.protocol import RawRequest
from tests.e2e.products import base64_of, picture_of, product_of, whole_row

pytestmark = pytest.mark.xdist_group("towers")


def test_they_are_trained_exported_and_encode(shop: Path, catalog: Catalog, tmp_path: Path) -> None:
    settings = Settings(finetune=FinetuneSettings(epochs=1), scorer=ScorerSettings(epochs=1))
    root, store = tmp_path / "workspace", tmp_path / "store"
    workspace = open_workspace(shop, override=root, model_store=store)
    console = Console(stderr=True)
    stages = plan_stages(workspace, settings, make_jobs(console))
    # In every runtime the graphs have passed the parity gate.
    bring_up_to_date(stages.up_to("graphs"), console)
    checkpoint = load_checkpoint(workspace.checkpoint)
    spec = checkpoint.spec.encoder
    assert spec.image is not None
    assert spec.image.architecture == PACKAGED_IMAGE
    assert spec.text is not None
    assert spec.text.weights == "packaged"

    row = whole_row(catalog)
    product = {**product_of(catalog, row), "image": base64_of(picture_of(catalog, row))}
    request = RawRequest.unhurried(json.dumps(product).encode())
    [answer] = load_encoder_predictor(workspace.graphs).predict([request])
    ids, embeddings = checkpoint.embeddings()
    expected = embeddings[ids.index(product["id"])].numpy()
    np.testing.assert_allclose(json.loads(answer.body)["embedding"], expected, atol=2e-3)
