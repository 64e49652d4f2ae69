"""A vocabulary in 4 bits passes the parity gate in every runtime, and stays packed.

So does the early fusion.
"""

import json

import torch
from safetensors.torch import load_file, save_file

from export.run import export_model
from newshelf.nn.spec import read_spec
from tests.unit.export.tiny_checkpoint import tiny_spec, write_tiny_checkpoint

ROWS = 20_000
WORDS = "text_tower.backbone.embeddings.word_embeddings"


def test_a_packed_vocabulary_and_early_fusion_export(tmp_path):
    spec = tiny_spec(scorer=False)
    text = spec.encoder.text.model_copy(
        update={
            "packed_words": True,
            "architecture": spec.encoder.text.architecture | {"vocab_size": ROWS},
        }
    )
    fusion = spec.encoder.fusion.model_copy(update={"kind": "early"})
    encoder = spec.encoder.model_copy(update={"text": text, "fusion": fusion})
    folder = write_tiny_checkpoint(
        tmp_path / "checkpoint", spec.model_copy(update={"encoder": encoder})
    )
    state = load_file(folder / "encoder.safetensors")
    assert state[f"{WORDS}.codes"].shape == (ROWS, 1, 16)
    state[f"{WORDS}.codes"] = torch.randint(0, 256, (ROWS, 1, 16), dtype=torch.uint8)
    state[f"{WORDS}.scales"] = torch.rand(ROWS, 1, 1).half()
    save_file(state, folder / "encoder.safetensors")

    export_model(folder, tmp_path / "export")

    parity = json.loads((tmp_path / "export" / "parity.json").read_text())
    assert parity["passed"]
    assert read_spec(tmp_path / "export").encoder.fusion.kind == "early"
    assert {row["runtime"] for row in parity["cases"]} == {"onnxruntime", "torchscript", "openvino"}
    others = sum(tensor.nbytes for name, tensor in state.items() if not name.startswith(WORDS))
    for name in ("encoder.pt", "encoder.onnx", "encoder.bin"):
        size = (tmp_path / "export" / name).stat().st_size
        assert size < others + ROWS * 32, f"{name}: its vocabulary is unpacked"
