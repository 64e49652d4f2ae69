"""Every kind of fusion passes the parity gate, in both runtimes."""

import json

import pytest

from export.run import export_model
from tests.unit.export.tiny_checkpoint import tiny_spec, write_tiny_checkpoint


@pytest.mark.parametrize("kind", ["early", "late"])
def test_a_fusion_exports_and_both_runtimes_agree(kind, tmp_path):
    """Attention, the default, is what every other test of the export has."""
    spec = tiny_spec(scorer=False)
    fusion = spec.encoder.fusion.model_copy(update={"kind": kind})
    encoder = spec.encoder.model_copy(update={"fusion": fusion})
    folder = write_tiny_checkpoint(
        tmp_path / "checkpoint", spec.model_copy(update={"encoder": encoder})
    )
    export_model(folder, tmp_path / "export")
    parity = json.loads((tmp_path / "export" / "parity.json").read_text())
    assert parity["passed"] is True
    assert {row["runtime"] for row in parity["cases"]} >= {"onnxruntime", "torchscript"}
