"""The precisions of a tiny but real encoder, and what an archive may take of them."""

import io
import json
import shutil

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import quantize_dynamic
from rich.console import Console

from export.candidates import CANDIDATES, Candidate, reference_outputs, try_candidate
from export.graphs import write_openvino
from export.index import export_golden
from export.int8 import PictureRecipe, Recipe, quantise, write_int8
from export.precision import PRECISION, choose, export_precisions, find_precisions
from export.quality import draw_products
from newshelf.errors import ParityError, SetupError
from newshelf.files import read_json, write_json
from newshelf.nn.spec import read_spec
from newshelf.serving.encoder_predictor import open_encoder
from newshelf.serving.golden import check_golden_embeddings
from newshelf.serving.runtimes.base import Device, Graph, encoder_graph, open_runtime
from newshelf.serving.runtimes.openvino import OpenVinoRuntime
from newshelf.serving.settings import ServingSettings
from tests.unit.export.catalogs import write_pictured_catalog
from tests.unit.export.tiny_checkpoint import shared_export

QUIET = Console(file=io.StringIO())
JUDGED = 15
"""Of a catalogue of 24 products; int8 is calibrated on the others."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return write_pictured_catalog(tmp_path_factory.mktemp("shop") / "shop")


@pytest.fixture(scope="module")
def made(tmp_path_factory, worker_id, catalog, exported):
    """The tiny export with its precisions; not to be changed."""
    out = tmp_path_factory.mktemp("precision") / "export"
    shutil.copytree(exported, out)
    export_precisions(out, catalog, QUIET)
    return out


def test_golden_products_are_the_catalogues_with_what_the_encoder_says_of_them(made, catalog):
    export_golden(made, catalog)
    golden = read_json(made / "golden.json")
    assert len(golden["requests"]) == 16
    assert {request["title"] for request in golden["requests"]} <= set(catalog.items["title"])
    assert all("image" in request for request in golden["requests"])
    assert np.linalg.norm(golden["embeddings"], axis=1) == pytest.approx(1, abs=1e-5)
    assert len(golden["scores"]) == 16
    for runtime in ("onnxruntime", "openvino", "torchscript"):
        settings = ServingSettings(runtime=runtime)
        encoder = open_encoder(made, read_spec(made), Device(), settings)
        check_golden_embeddings(made, encoder, settings, Device())


@pytest.fixture
def changed(made, tmp_path):
    """A report in which one says what passed, and how fast it was."""

    def change(**rows):
        out = tmp_path / "export"
        out.mkdir()
        for name in (PRECISION, "encoder.onnx"):
            shutil.copyfile(made / name, out / name)
        report = read_json(out / PRECISION)
        for row in report["candidates"]:
            speed, reason = rows.get(f"{row['runtime']}_{row['precision']}", (1.0, None))
            row["products_per_s"], row["reasons"] = speed, [reason] if reason else []
            row["passed"] = reason is None
        write_json(out / PRECISION, report)
        return out

    return change


def test_every_candidate_is_reported_with_speed_quality_and_verdict(made, catalog):
    spec = read_spec(made).encoder
    judged = draw_products(catalog, spec, made / "tokenizer.json", 24).part(slice(JUDGED))
    labels = sum(int((values >= 0).sum()) for values in judged.labels.values())
    report = json.loads((made / PRECISION).read_text())
    rows = [*report["candidates"], *report["on_a_gpu"]]
    assert [(row["runtime"], row["precision"]) for row in rows] == [
        (one.runtime, one.precision) for one in CANDIDATES
    ]
    assert report["products"] == JUDGED
    for row in report["candidates"]:
        assert row["passed"] == (not row["reasons"])
        assert row["products_per_s"] > 0
        assert [view["view"] for view in row["views"]] == ["products", "pictures", "texts"]
        assert all(view["labels"] == labels > JUDGED for view in row["views"])
        assert row["views"][0]["products"] == JUDGED
    full = [row for row in report["candidates"] if row["precision"] == "fp32"]
    assert all(row["passed"] for row in full)
    assert len((made / "precision.md").read_text().splitlines()) == 6 + len(CANDIDATES)


def test_int8_is_judged_on_pictures_that_it_was_not_made_with(
    exported, catalog, tmp_path, monkeypatch
):
    made_with, judged_on = set(), set()

    def quantising(source, path, calibrating, attempt):
        made_with.update(pixels.tobytes() for pixels in calibrating.pictures())
        return quantise(source, path, calibrating, attempt)

    def trying(folder, candidate, products, reference):
        if candidate.precision == "int8":
            judged_on.update(pixels.tobytes() for pixels in products.pictures())
        return try_candidate(folder, candidate, products, reference)

    monkeypatch.setattr("export.precision.quantise", quantising)
    monkeypatch.setattr("export.precision.try_candidate", trying)
    out = tmp_path / "export"
    shutil.copytree(exported, out)
    export_precisions(out, catalog, QUIET)
    assert (len(made_with), len(judged_on)) == (24 - JUDGED, JUDGED)
    assert made_with.isdisjoint(judged_on)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("int8.onnx", "onnxruntime"),
        ("int8.xml", "openvino"),
        ("int8.bin", "openvino"),
        ("fp16.onnx", "onnxruntime"),
    ],
)
def test_a_file_is_kept_exactly_when_a_candidate_passes_with_it(made, name, runtime):
    report = json.loads((made / PRECISION).read_text())
    (row,) = (
        row
        for row in [*report["candidates"], *report["on_a_gpu"]]
        if (row["runtime"], row["precision"]) == (runtime, name.partition(".")[0])
    )
    assert (made / f"encoder.{name}").exists() == row["passed"]


TOWERS = {"pictures": {"image"}, "texts": {"input_ids", "attention_mask"}}
INPUTS = {"image", "image_row", "input_ids", "attention_mask", "text_row", "attributes"}


@pytest.mark.parametrize(
    ("recipe", "quantised"),
    [
        (Recipe(PictureRecipe(8), None), ["pictures"]),
        (Recipe(None, 8), ["texts"]),
        (Recipe(PictureRecipe(8), 8), ["pictures", "texts"]),
    ],
    ids=["pictures", "texts", "both"],
)
def test_only_the_towers_of_the_recipe_are_quantised(made, tmp_path, catalog, recipe, quantised):
    products = draw_products(catalog, read_spec(made).encoder, made / "tokenizer.json", 24)
    path = tmp_path / "encoder.int8.onnx"
    write_int8(made / "encoder.onnx", path, products, recipe)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for name, inputs in TOWERS.items():
        # What this tower computes before anything else is mixed in.
        own, others = set(inputs), INPUTS - inputs
        rounded = 0
        for node in model.graph.node:
            if others.intersection(node.input):
                others.update(node.output)
            elif own.intersection(node.input):
                own.update(node.output)
                rounded += node.op_type == "QuantizeLinear"
        if rounded:
            assert rounded > 3
            found.append(name)
    assert found == quantised
    scales = [
        weights[node.input[1]].dims
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    ]
    # One scale per output channel.
    assert any(list(dims) and dims[0] > 1 for dims in scales)


def test_openvino_takes_a_quantised_tower_apart_and_agrees_with_onnx_runtime(
    made, tmp_path, catalog
):
    spec = read_spec(made).encoder
    products = draw_products(catalog, spec, made / "tokenizer.json", 24)
    path = tmp_path / "encoder.int8.onnx"
    write_int8(made / "encoder.onnx", path, products, Recipe(PictureRecipe(8), 8))
    write_openvino(path, path.with_suffix(".xml"))
    graph = encoder_graph(spec)
    apart = OpenVinoRuntime(path.with_suffix(".xml"), graph, 1, "int8")
    assert len(apart._parts) == 2
    whole = open_runtime("onnxruntime", tmp_path, graph, Device(), 1, "int8")
    for view in ("products", "pictures", "texts"):
        for batch in products.batches(view):
            one, other = (runtime.run(batch)["embedding"] for runtime in (apart, whole))
            assert (one * other).sum(axis=1).min() > 0.995


def test_a_candidate_that_is_too_far_off_is_refused_with_its_numbers(made, tmp_path, catalog):
    """Dynamic int8 of everything, on weights that were made for it to fail on."""
    folder = tmp_path / "export"
    shutil.copytree(made, folder)
    model = onnx.load(folder / "encoder.onnx")
    rng = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            values = onnx.numpy_helper.to_array(tensor).copy()
            # One outlier takes all the levels of a per-tensor scale.
            values[0, 0] = 200 * np.abs(values).max()
            values += rng.standard_normal(values.shape).astype(np.float32) * 1e-3
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    # The quantiser infers them anew, and does not expect any.
    del model.graph.value_info[:]
    onnx.save(model, folder / "encoder.onnx")
    quantize_dynamic(folder / "encoder.onnx", folder / "encoder.int8.onnx")
    products = draw_products(catalog, read_spec(folder).encoder, folder / "tokenizer.json", 24)
    reference = reference_outputs(folder, products)
    tried = try_candidate(folder, Candidate("onnxruntime", "int8"), products, reference)
    assert any("cosine" in reason for reason in tried.reasons), tried


def test_what_does_not_run_is_refused_and_not_an_error(made, tmp_path, catalog):
    spec = read_spec(made).encoder
    products = draw_products(catalog, spec, made / "tokenizer.json", 8)
    reference = reference_outputs(made, products)
    tried = try_candidate(tmp_path, Candidate("openvino", "int8"), products, reference)
    assert tried.products_per_s is None
    assert tried.reasons[0].startswith("does not run: ")


def test_without_pictures_the_texts_alone_are_in_int8(tmp_path, tmp_path_factory, worker_id):
    catalog = write_pictured_catalog(tmp_path / "shop", pictures=False)
    out = tmp_path / "export"
    shutil.copytree(shared_export(tmp_path_factory, worker_id, towers="text")[1], out)
    export_precisions(out, catalog, QUIET)
    report = read_json(out / PRECISION)
    assert report["products"] == JUDGED
    rows = {(row["runtime"], row["precision"]): row for row in report["candidates"]}
    assert rows["onnxruntime", "int8"]["recipe"] == "texts: weights of 8 bits"
    assert rows["onnxruntime", "fp32"]["passed"]
    assert [view["view"] for view in rows["onnxruntime", "fp32"]["views"]] == ["products", "texts"]
    assert (out / "encoder.int8.onnx").exists() == rows["onnxruntime", "int8"]["passed"]


def test_auto_takes_the_fastest_that_passed(changed):
    out = changed(openvino_int8=(9.0, "cosine 0.5"), onnxruntime_int8=(5.0, None))
    assert choose(out, "auto", "auto") == ("onnxruntime", "int8")
    assert choose(out, "openvino", "fp32") == ("openvino", "fp32")
    assert choose(out, "torchscript", "auto") == ("torchscript", "fp32")


def test_a_demand_that_failed_is_an_error_with_numbers_and_a_way_out(changed):
    out = changed(openvino_int8=(9.0, "cosine 0.5"), openvino_bf16=(7.0, None))
    message = (
        r"precision = 'int8' is not served: openvino int8: cosine 0\.5\. Instead, the fastest "
        r"that passed is runtime = 'openvino', precision = 'bf16'"
    )
    with pytest.raises(ParityError, match=message):
        choose(out, "openvino", "int8")
    with pytest.raises(ParityError, match="no such candidate"):
        choose(out, "torchscript", "int8")


def test_what_is_for_a_gpu_is_never_chosen_by_itself(made):
    precision = choose(made, "onnxruntime", "auto")[1]
    assert precision != "fp16"
    if read_json(made / PRECISION)["on_a_gpu"][0]["passed"]:
        assert choose(made, "auto", "fp16") == ("onnxruntime", "fp16")


@pytest.mark.parametrize(("passed", "expected"), [(True, "fp16"), (False, "fp32")])
def test_auto_takes_the_gpu_where_there_is_one(changed, passed, expected):
    out = changed()
    report = read_json(out / PRECISION)
    report["on_a_gpu"][0]["passed"] = passed
    write_json(out / PRECISION, report)
    assert choose(out, "auto", "auto", gpu=True) == ("onnxruntime", expected)
    assert choose(out, "torchscript", "auto", gpu=True) == ("torchscript", "fp32")
    assert choose(out, "auto", "fp32", gpu=True)[1] == "fp32"


def test_without_a_report_only_float32_is_served(tmp_path):
    assert choose(tmp_path, "auto", "auto") == ("onnxruntime", "fp32")
    assert choose(tmp_path, "openvino", "fp32") == ("openvino", "fp32")
    with pytest.raises(SetupError, match=r"precision\.json is missing: export again"):
        choose(tmp_path, "auto", "int8")


def test_a_report_on_another_encoder_is_refused(changed):
    out = changed()
    report = read_json(out / PRECISION)
    write_json(out / PRECISION, {**report, "encoder": "another"})
    with pytest.raises(SetupError, match="another encoder"):
        choose(out, "auto", "auto")


def test_a_search_adds_files_of_its_own_and_leaves_the_graphs_alone(
    exported, catalog, tmp_path, monkeypatch
):
    graphs, out = tmp_path / "graphs", tmp_path / "precision"
    shutil.copytree(exported, graphs)
    out.mkdir()
    before = {path.name: path.read_bytes() for path in graphs.iterdir() if path.is_file()}

    def export(folder, *_):
        assert (folder / "encoder.onnx").read_bytes() == before["encoder.onnx"]
        (folder / PRECISION).write_text("{}")
        # As of a runtime that is refused.
        (folder / "encoder.pt").unlink()

    monkeypatch.setattr("export.precision.export_precisions", export)
    find_precisions(graphs, out, catalog, QUIET)
    assert [path.name for path in out.iterdir()] == [PRECISION]
    assert {path.name: path.read_bytes() for path in graphs.iterdir() if path.is_file()} == before


def test_products_have_rows_by_view(made, catalog):
    products = draw_products(catalog, read_spec(made).encoder, made / "tokenizer.json", 10, seed=1)
    assert [len(products.rows(view)) for view in ("products", "pictures", "texts")] == [10] * 3
    pictures = next(products.batches("pictures"))
    assert pictures["text_row"].tolist() == [8]
    assert not pictures["attributes"].any()
    texts = next(products.batches("texts"))
    assert texts["image_row"].tolist() == [8]
    assert isinstance(encoder_graph(products.spec), Graph)
