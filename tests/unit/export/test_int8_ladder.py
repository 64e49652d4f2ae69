"""How much of the towers is quantised, and when less of them."""

import numpy as np
import onnx
import pytest

from export.candidates import Tried
from export.int8 import (
    PICTURES,
    TEXTS,
    PictureRecipe,
    Recipe,
    kept_convolutions,
    quantise,
    write_int8,
)
from export.quality import Quality, draw_products
from newshelf.nn.spec import read_spec
from tests.unit.export.catalogs import write_pictured_catalog


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


@pytest.mark.parametrize("recipe", PICTURES[:-1], ids=str)
def test_a_recipe_says_which_convolutions_are_quantised_and_how_finely(
    exported, products, tmp_path, recipe
):
    path = tmp_path / "encoder.int8.onnx"
    write_int8(exported / "encoder.onnx", path, products, Recipe(recipe, None))
    found = convolutions(path)
    assert len(found) > 3
    for at, (quantised, weights) in enumerate(found):
        assert quantised == (recipe.float32 == "none" or at > 0)
        if quantised:
            assert np.abs(weights.astype(int)).max() <= 2 ** (recipe.bits - 1)


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
    assert kept_convolutions(graph, PictureRecipe(8, float32)) == kept


def view(name, cosine):
    return Quality(name, 24, cosine, cosine, cosine, None, None, 0)


@pytest.mark.parametrize(
    ("failing", "recipes"),
    [
        # By a runtime: the views that fail with the first, the second … recipe.
        ([], [(0, 0)]),
        ([["pictures"]], [(0, 0), (1, 0)]),
        ([["texts"]], [(0, 0), (0, 1)]),
        ([["pictures"], ["pictures", "products"], ["texts"]], [(0, 0), (1, 0), (2, 0), (2, 1)]),
        ([["products"]], [(0, 0), (1, 1)]),
        ([[]], [(0, 0), (1, 1)]),
        ([["pictures"]] * 9, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]),
        ([["texts", "pictures"]] * 9, [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2)]),
    ],
    ids=str,
)
def test_the_tower_that_fails_goes_down_its_recipes(
    exported, products, tmp_path, monkeypatch, failing, recipes
):
    made = []

    def writing(_source, path, _calibrating, recipe):
        made.append(recipe)
        path.write_text(str(recipe))

    left = iter(failing)

    def attempt(candidate):
        if candidate.runtime != "onnxruntime":
            return Tried(candidate, (), ())
        fails = next(left, None)
        bad = [view(name, 0.5) for name in fails or ()]
        views = [view("pictures", 0.999), *bad]
        return Tried(candidate, views, () if fails is None else ("too far off",))

    monkeypatch.setattr("export.int8.write_int8", writing)
    monkeypatch.setattr("export.int8.write_openvino", lambda _made, _path: None)
    path = tmp_path / "encoder.int8.onnx"
    tried = quantise(exported / "encoder.onnx", path, products, attempt)
    assert made == [Recipe(PICTURES[picture], TEXTS[text]) for picture, text in recipes]
    first, other = tried
    assert bool(first.reasons) == (len(failing) > len(recipes))
    assert first.recipe == path.read_text() == str(made[-1])
    # The other runtime got its own, which was not made again.
    assert other.recipe == str(made[0])


def test_each_runtime_keeps_the_files_that_it_passed_with(exported, products, tmp_path):
    path = tmp_path / "encoder.int8.onnx"
    seen = {"onnxruntime": [], "openvino": []}

    def attempt(candidate):
        file = path if candidate.runtime == "onnxruntime" else path.with_suffix(".bin")
        seen[candidate.runtime].append(file.read_bytes())
        passes = candidate.runtime == "onnxruntime" or len(seen["openvino"]) > 1
        views = [view("texts", 0.5)]
        return Tried(candidate, views, () if passes else ("too far off",))

    tried = quantise(exported / "encoder.onnx", path, products, attempt)
    assert [one.recipe for one in tried] == [
        str(Recipe(PICTURES[0], 8)),
        str(Recipe(PICTURES[0], 7)),
    ]
    assert path.read_bytes() == seen["onnxruntime"][0]
    assert path.with_suffix(".bin").read_bytes() == seen["openvino"][1] != seen["openvino"][0]
    assert {file.name for file in tmp_path.iterdir()} == {
        "encoder.int8.onnx",
        "encoder.int8.xml",
        "encoder.int8.bin",
    }


def test_what_cannot_be_quantised_is_told_and_less_is_tried(
    exported, products, tmp_path, monkeypatch
):
    def failing(*_arguments, **_options):
        raise ValueError("an operator that nobody knows")

    monkeypatch.setattr("export.int8_graph.quantize_static", failing)
    path = tmp_path / "encoder.int8.onnx"
    tried = quantise(exported / "encoder.onnx", path, products, lambda _candidate: None)
    for one in tried:
        [reason] = one.reasons
        assert "cannot be made" in reason
        assert "an operator that nobody knows" in reason
    assert list(tmp_path.iterdir()) == []


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
