import numpy as np
import pytest
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save_file

from newshelf.errors import WeightsError
from newshelf.serving.index import map_tensors
from newshelf.serving.search.base import SearchManifest, open_search
from newshelf.serving.search.build import build_search


def rows(count, width=8, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(params=["codes", "lists"])
def written(request, tmp_path):
    """Matrix, folder, and what ``open_search`` needs besides."""
    matrix = rows(600)
    limit = 1000 if request.param == "codes" else 100
    return (
        matrix,
        tmp_path,
        *build_search(matrix, tmp_path, "rows", ann_items=limit, compressed_bytes=0),
    )


def open_again(written, **changed):
    matrix, folder, manifest, kept = written
    return open_search(
        changed.get("matrix", matrix),
        folder,
        "rows",
        changed.get("manifest", manifest),
        changed.get("kept", kept),
    )


def test_what_was_written_opens(written):
    matrix = written[0]
    found = open_again(written).nearest(matrix[3], np.ones(600, dtype=bool), 5)
    assert 3 in found


@pytest.mark.parametrize("keep", [None, 0, 10, 60, -1])
def test_a_missing_or_cut_file_is_told(written, keep):
    path = written[1] / "rows.faiss"
    data = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(data[:keep])
    with pytest.raises(WeightsError, match=r"rows\.faiss cannot be loaded"):
        open_again(written)


def test_a_file_of_something_else_is_told(written):
    path = written[1] / "rows.faiss"
    path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        open_again(written)


@pytest.mark.parametrize("matrix", [rows(599), rows(600, width=9)], ids=["rows", "width"])
def test_codes_of_another_matrix_are_refused(written, matrix):
    with pytest.raises(WeightsError, match="belongs"):
        open_again(written, matrix=matrix)


def test_codes_are_not_taken_for_lists(written):
    *_, manifest, _ = written
    swapped = manifest.model_copy(
        update={"lists": 97, "budgets": {10: 5}} if manifest.lists is None else {"lists": None}
    )
    with pytest.raises(WeightsError, match="belongs"):
        open_again(written, manifest=swapped)


def test_a_missing_array_is_told(written):
    with pytest.raises(WeightsError, match=r"lacks 'rows\.\w+'"):
        open_again(written, kept={})


def test_arrays_of_another_search_are_refused(written):
    kept = {name: array[:-1] for name, array in written[3].items()}
    with pytest.raises(WeightsError, match="of another index"):
        open_again(written, kept=kept)


@pytest.mark.parametrize(
    "changed",
    [
        {"lists": 5},
        {"budgets": {10: 5}},
        {"lists": 5, "budgets": {10: 0}},
        {"step": 0.0},
        {"step": float("nan")},
        {"more": 1},
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(changed):
    values = {"bytes": 9, "step": 0.1, "row_norm": 1.0, "row_error": 0.1, **changed}
    with pytest.raises(ValidationError):
        SearchManifest.model_validate(values)


def test_arrays_are_mapped_as_they_were_written(tmp_path):
    arrays = {
        "a": rows(7),
        "b": np.arange(5, dtype=np.int64),
        "c": np.zeros((0, 3), dtype=np.float32),
        "d": np.arange(3, dtype=np.int32),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"made": "here"})
    mapped = map_tensors(tmp_path / "x.safetensors")
    assert set(mapped) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(mapped[name], array)
        assert mapped[name].dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        mapped["a"][0, 0] = 1


def test_mapped_pages_are_the_files_own(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros((4, 1024), dtype=np.float32)}, path)
    mapped = map_tensors(path)["a"]
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(3).tobytes())
    # A copy would still have the zero.
    assert mapped[-1, -1] == 3


def test_a_damaged_file_and_other_types_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": rows(7)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SafetensorError):
        map_tensors(path)
    save_file({"a": np.zeros(3, dtype=np.float16)}, path)
    with pytest.raises(ValueError, match="type F16"):
        map_tensors(path)
    with pytest.raises(OSError, match="nowhere"):
        map_tensors(tmp_path / "nowhere.safetensors")
