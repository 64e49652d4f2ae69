"""How much of the image tower is quantised, and when less of it."""

import numpy as np
import onnx
import pytest

from export.candidates import Tried
from export.int8_ladder import INT8, RECIPES, quantise
from export.products import draw_products
from export.quantize import Recipe, kept_convolutions, write_int8
from newshelf.nn.spec import read_spec
from tests.unit.export.test_precision import write_pictured_catalog


@pytest.fixture(scope="module")
def products(tmp_path_factory, exported):
    catalog = write_pictured_catalog(tmp_path_factory.mktemp("shop") / "shop")
    return draw_products(catalog, read_spec(exported).encoder, exported / "tokenizer.json", 24)


def convolutions(path):
    """For each, whether its weights are in int8, and the weights."""
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        if node.op_type == "Conv":
            source = maker.get(node.input[1])
            quantised = source is not None and source.op_type == "DequantizeLinear"
            weights = tensors[source.input[0] if quantised else node.input[1]]
            found.append((quantised, onnx.numpy_helper.to_array(weights)))
    return found


def written(exported, products, tmp_path, recipe):
    path = tmp_path / "encoder.int8.onnx"
    write_int8(exported / "encoder.onnx", path, products.pictures(), products.spec.image, recipe)
    return path


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_says_which_convolutions_are_quantised_and_how_finely(
    exported, products, tmp_path, recipe
):
    found = convolutions(written(exported, products, tmp_path, recipe))
    assert len(found) > 3
    for at, (quantised, weights) in enumerate(found):
        assert quantised == (recipe.float32 == "none" or at > 0)
        if quantised:
            assert np.abs(weights.astype(int)).max() <= 2 ** (recipe.weight_bits - 1)


@pytest.mark.parametrize(
    ("float32", "kept"),
    [("none", []), ("first", ["stem"]), ("light", ["stem", "depthwise"])],
)
def test_light_are_the_first_convolution_and_those_whose_channels_are_alone(float32, kept):
    def convolution(name, out, per_group, groups):
        weights = np.zeros((out, per_group, 3, 3), dtype=np.float32)
        tensor = onnx.numpy_helper.from_array(weights, f"{name}.weight")
        node = onnx.helper.make_node("Conv", ["x", tensor.name], [name], name=name, group=groups)
        return node, tensor

    made = [
        convolution("stem", 8, 3, 1),
        convolution("depthwise", 8, 1, 8),
        convolution("grouped", 8, 4, 2),
        convolution("pointwise", 16, 8, 1),
    ]
    nodes, tensors = zip(*made, strict=True)
    graph = onnx.helper.make_graph(nodes, "tower", [], [], tensors)
    assert kept_convolutions(graph, Recipe(8, float32)) == kept


@pytest.mark.parametrize("passing", [(0, 0), (0, 2), (3, 1), (4, 4), (None, 1), (None, None)])
def test_each_runtime_gets_the_first_recipe_that_it_passes_with(
    exported, products, tmp_path, passing
):
    """``passing``: by ONNX Runtime and by OpenVINO, whose files are its own."""
    path = tmp_path / "encoder.int8.onnx"
    files = {"onnxruntime": path, "openvino": path.with_suffix(".xml")}
    passes = dict(zip(files, passing, strict=True))
    seen = {runtime: [] for runtime in files}

    def attempt(candidate):
        runtime = candidate.runtime
        seen[runtime].append(files[runtime].read_bytes())
        passed = len(seen[runtime]) - 1 == passes[runtime]
        return Tried(candidate, (), () if passed else ("too far off",))

    tried = quantise(exported / "encoder.onnx", path, products, attempt)
    assert [one.candidate for one in tried] == list(INT8)
    last = len(RECIPES) - 1
    for one in tried:
        runtime = one.candidate.runtime
        at = last if passes[runtime] is None else passes[runtime]
        assert bool(one.reasons) == (passes[runtime] is None)
        assert one.recipe == str(RECIPES[at])
        assert len(seen[runtime]) == at + 1
        assert files[runtime].read_bytes() == seen[runtime][-1]
    assert {file.name for file in tmp_path.iterdir()} == {
        "encoder.int8.onnx",
        "encoder.int8.xml",
        "encoder.int8.bin",
    }


def test_files_that_are_mapped_are_not_written_over(exported, products, tmp_path):
    path = tmp_path / "encoder.int8.onnx"
    opened = []

    def attempt(candidate):
        if not opened and candidate.runtime == "openvino":
            opened.append(path.with_suffix(".bin").open("rb"))
            opened.append(path.with_suffix(".bin").read_bytes())
        return Tried(candidate, (), ("too far off",))

    quantise(exported / "encoder.onnx", path, products, attempt)
    with opened[0] as first:
        assert first.read() == opened[1]
    assert path.with_suffix(".bin").read_bytes() != opened[1]
