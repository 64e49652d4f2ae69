from pathlib import Path

import pytest

from newshelf.errors import SettingsError
from newshelf.files import write_json
from newshelf.tuning.points import Arithmetic, candidates, chosen

FP32 = Arithmetic("onnxruntime", "fp32")
INT8 = Arithmetic("onnxruntime", "int8")


def test_without_a_report_only_full_precision_is_tried(tmp_path: Path) -> None:
    found = candidates(tmp_path)
    assert FP32 in found
    assert {one.precision for one in found} == {"fp32"}


def test_only_what_passed_the_gate_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = [
        {"runtime": "onnxruntime", "precision": "fp32", "passed": True, "cosine": 1.0},
        {"runtime": "onnxruntime", "precision": "int8", "passed": False, "cosine": 0.951},
        {"runtime": "torchscript", "precision": "fp32", "passed": True},
    ]
    on_a_gpu = [{"runtime": "onnxruntime", "precision": "fp16", "passed": True}]
    write_json(tmp_path / "precision.json", {"candidates": measured, "on_a_gpu": on_a_gpu})
    monkeypatch.setattr("newshelf.tuning.points.which", lambda _: None)
    on_the_cpu = [FP32, Arithmetic("torchscript", "fp32")]
    assert candidates(tmp_path) == on_the_cpu
    monkeypatch.setattr("newshelf.tuning.points.which", lambda _: "/usr/bin/nvidia-smi")
    assert candidates(tmp_path) == [*on_the_cpu, Arithmetic("onnxruntime", "fp16")]


def test_a_runtime_that_is_not_installed_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("newshelf.tuning.points.find_spec", lambda name: name == "torch" or None)
    assert candidates(tmp_path) == [Arithmetic("torchscript", "fp32")]


def test_what_was_asked_for_is_chosen() -> None:
    script = Arithmetic("torchscript", "fp32")
    assert chosen([FP32, INT8, script], None, None) == [FP32, INT8, script]
    assert chosen([FP32, INT8, script], ["onnxruntime"], None) == [FP32, INT8]
    assert chosen([FP32, INT8, script], None, ["int8"]) == [INT8]


def test_nothing_left_says_what_there_was() -> None:
    with pytest.raises(SettingsError, match="onnxruntime fp32, onnxruntime int8"):
        chosen([FP32, INT8], ["openvino"], None)


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "precision.json", {"nonsense": 1})
    with pytest.raises(SettingsError, match=r"precision\.json cannot be read"):
        candidates(tmp_path)
