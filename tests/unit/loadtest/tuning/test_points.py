"""Points to try, and the runtimes and precisions that may be tried."""

from pathlib import Path

import pytest

from loadtest.tuning.points import Arithmetic, SearchSpace, candidates, layouts, select, with_point
from newshelf.config import (
    ArchiveSettings,
    ModelServingSettings,
    RecommenderServingSettings,
    Settings,
)
from newshelf.errors import SettingsError
from newshelf.files import write_json
from tests.unit.loadtest.tuning.conftest import MakePoint


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1), (2, 1)]),
        (2, [(1, 2), (2, 1), (3, 1)]),
        (6, [(1, 6), (2, 3), (4, 1), (6, 1), (7, 1)]),
        (8, [(1, 8), (2, 4), (4, 2), (8, 1), (9, 1)]),
    ],
)
def test_workers_share_the_cores(cores: int, expected: list[tuple[int, int]]) -> None:
    assert layouts(cores) == expected


def test_given_workers_and_threads() -> None:
    assert layouts(8, [2]) == [(2, 4)]
    assert layouts(8, [2, 3], [1, 4]) == [(2, 1), (2, 4), (3, 1), (3, 4)]
    assert layouts(2, None, [5]) == [(1, 5), (2, 5), (3, 5)]


def test_a_point_changes_only_the_tuned_settings(point: MakePoint) -> None:
    own = Settings(
        seed=3,
        archive=ArchiveSettings(
            encoder=ModelServingSettings(queue_size=99, workers=7),
            recommender=RecommenderServingSettings(workers=5),
        ),
    )
    tuned = with_point(own, "encoder", point(workers=2, threads=3, batch=4, delay=9))
    assert tuned.seed == 3
    assert tuned.archive.recommender == own.archive.recommender
    assert tuned.archive.encoder == ModelServingSettings(
        queue_size=99, workers=2, threads=3, batch_size=4, max_batch_delay_ms=9
    )
    # What the user did not write stays unwritten.
    dumped = tuned.model_dump(exclude_unset=True)
    assert set(dumped) == {"seed", "archive"}
    assert dumped["archive"]["recommender"] == {"workers": 5}


def test_a_value_that_the_settings_refuse_is_named(point: MakePoint) -> None:
    with pytest.raises(SettingsError, match=r"cannot be archived: .*max_batch_delay_ms"):
        with_point(Settings(), "encoder", point(delay=5000))
    with pytest.raises(SettingsError, match="runtime"):
        with_point(Settings(), "encoder", point(runtime="tvm"))


def test_the_middle_represents_a_computing(point: MakePoint) -> None:
    computing = point().computing
    space = SearchSpace((computing,), (1, 4, 8, 16), (1, 3, 10))
    assert space.middle(computing) == point(batch=8, delay=3)
    assert space.size() == 12
    assert SearchSpace((computing,), (2,), (1,)).middle(computing) == point(batch=2, delay=1)


def test_a_space_without_values_is_refused(point: MakePoint) -> None:
    with pytest.raises(SettingsError, match="nothing to tune"):
        SearchSpace((point().computing,), (), (1,))


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
    monkeypatch.setattr("loadtest.tuning.points.which", lambda _: None)
    on_the_cpu = [FP32, Arithmetic("torchscript", "fp32")]
    assert candidates(tmp_path) == on_the_cpu
    monkeypatch.setattr("loadtest.tuning.points.which", lambda _: "/usr/bin/nvidia-smi")
    assert candidates(tmp_path) == [*on_the_cpu, Arithmetic("onnxruntime", "fp16")]


def test_a_runtime_that_is_not_installed_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.tuning.points.find_spec", lambda name: name == "torch" or None)
    assert candidates(tmp_path) == [Arithmetic("torchscript", "fp32")]


def test_runtimes_and_precisions_are_selected() -> None:
    script = Arithmetic("torchscript", "fp32")
    assert select([FP32, INT8, script], None, None) == [FP32, INT8, script]
    assert select([FP32, INT8, script], ["onnxruntime"], None) == [FP32, INT8]
    assert select([FP32, INT8, script], None, ["int8"]) == [INT8]


def test_an_empty_selection_names_the_candidates() -> None:
    with pytest.raises(SettingsError, match="onnxruntime fp32, onnxruntime int8"):
        select([FP32, INT8], ["openvino"], None)


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "precision.json", {"nonsense": 1})
    with pytest.raises(SettingsError, match=r"precision\.json cannot be read"):
        candidates(tmp_path)
