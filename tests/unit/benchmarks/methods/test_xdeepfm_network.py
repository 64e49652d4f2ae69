"""xDeepFM beside the paper's formulas as loops, traced, and on a GPU that is not there."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from benchmarks.methods.ctr.fields import Field
from benchmarks.methods.ctr.xdeepfm import CIN, XDeepFM, XDeepFMSettings

FIELDS = (
    Field(name="user", kind="category", size=5),
    Field(name="item", kind="category", size=7),
    Field(name="history", kind="bag", size=7),
    Field(name="embedding", kind="dense", size=6),
    Field(name="other", kind="dense", size=3),
)
ROWS = 4


@pytest.fixture
def model() -> XDeepFM:
    torch.manual_seed(0)
    model = XDeepFM(FIELDS, XDeepFMSettings(width=3, cin=(4, 2), deep=(5,), init_std=1.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model.eval()


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    categories = torch.tensor([[0, 6], [4, 0], [2, 3], [1, 1]])
    bags = torch.tensor([[[1, 2, 0, 6]], [[0, 0, 0, 0]], [[3, 3, 3, 3]], [[0, 5, 0, 0]]])
    return categories, bags, torch.randn(ROWS, 9, generator=generator)


def naive_cin(cin: CIN, fields: Tensor) -> list[float]:
    """Equations 6 and 7 for one row ``(m, D)``, by loops."""
    width = fields.shape[1]
    previous = [row.tolist() for row in fields]
    first = [row.tolist() for row in fields]
    pooled = []
    for number, layer in enumerate(cin.layers):
        found = []
        for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True):
            row = []
            for d in range(width):
                value = bias
                for i in range(len(previous)):
                    for j in range(len(first)):
                        value += weights[i * len(first) + j] * previous[i][d] * first[j][d]
                row.append(max(value, 0.0) if cin.activation == "relu" else value)
            found.append(row)
        half = len(found) // 2 if number + 1 < len(cin.layers) else 0
        previous = found[:half] or found
        pooled += [sum(row) for row in found[half:]]
    return pooled


@torch.no_grad()
@pytest.mark.parametrize("activation", ["identity", "relu"])
@pytest.mark.parametrize("maps", [(3,), (4, 3), (2, 4, 5)])
def test_the_cin_equals_the_papers_loops(maps, activation):
    torch.manual_seed(3)
    cin = CIN(3, maps, activation)
    fields = torch.randn(ROWS, 3, 5)
    found = cin(fields)
    assert found.shape == (ROWS, cin.width)
    for row in range(ROWS):
        assert found[row].tolist() == pytest.approx(naive_cin(cin, fields[row]), abs=1e-4)


@torch.no_grad()
def test_without_a_bias_layer_k_is_a_polynomial_of_degree_k_plus_1():
    cin = CIN(3, (4, 4, 2))
    for layer in cin.layers:
        layer.bias.zero_()
    fields = torch.randn(ROWS, 3, 5)
    scale = torch.tensor([2.0**2] * 2 + [2.0**3] * 2 + [2.0**4] * 2)
    torch.testing.assert_close(cin(2 * fields), cin(fields) * scale)


def looked_up(model: XDeepFM, categories: list[int], bag: list[int], dense: Tensor) -> Tensor:
    """Vectors and linear weights of one row, field by field: (5, 3 + 1)."""
    table = torch.cat([model.fields.vectors.weight, model.fields.weights.weight], dim=1)
    user, item = table[:5][categories[0]], table[5:12][categories[1]]
    taken = [table[12:][value] for value in bag if value]
    history = sum(taken) / len(taken) if taken else torch.zeros(4)
    parts = []
    for place, part in enumerate((dense[:6], dense[6:])):
        weight = torch.cat(
            [
                model.fields.projections[place].weight,
                model.fields.dense_weights[place].weight,
            ]
        )
        parts.append(weight @ part)
    return torch.stack([user, item, history, *parts])


@torch.no_grad()
def test_the_logit_is_the_sum_of_its_parts(model, inputs):
    categories, bags, dense = inputs
    logits = model(*inputs)
    assert logits.shape == (ROWS,)
    for row in range(ROWS):
        found = looked_up(model, categories[row].tolist(), bags[row, 0].tolist(), dense[row])
        vectors, weights = found[:, :3], found[:, 3]
        linear = sum(weights.tolist()) + float(model.bias)
        crosses = torch.tensor(naive_cin(model.cin, vectors))
        hidden = (model.deep[0].weight @ vectors.flatten() + model.deep[0].bias).relu()
        expected = (
            linear
            + float(model.cin_weight.weight[0] @ crosses)
            + float(model.deep_weight.weight[0] @ hidden)
        )
        assert float(logits[row]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("without", [{"cin": ()}, {"deep": ()}, {"cin": (), "deep": ()}])
def test_parts_can_be_left_out(inputs, without):
    model = XDeepFM(FIELDS, XDeepFMSettings(width=3, **without))
    assert (model.cin is None) == ("cin" in without)
    assert (model.deep is None) == ("deep" in without)
    model.fields.weights.weight.fill_(1.0)
    if without == {"cin": (), "deep": ()}:
        # Every look-up weighs 1, an empty history 0.
        assert model(*inputs).tolist() == [3.0, 2.0, 3.0, 3.0]


@torch.no_grad()
def test_the_order_and_the_padding_of_a_history_do_not_matter(model, inputs):
    categories, bags, dense = inputs
    longer = torch.cat([bags.flip(2), torch.zeros_like(bags)], dim=2)
    torch.testing.assert_close(model(categories, longer, dense), model(*inputs))


@torch.no_grad()
def test_rows_do_not_touch_each_other(model, inputs):
    alone = torch.cat([model(*(part[row : row + 1] for part in inputs)) for row in range(ROWS)])
    torch.testing.assert_close(model(*inputs), alone)


def test_gradients_reach_every_parameter(model, inputs):
    model(*inputs).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_only_categories_or_only_a_bag_or_only_dense_fields(inputs):
    categories, bags, dense = inputs
    none = categories[:, :0], bags[:, :0], dense[:, :0]
    for fields, given in (
        (FIELDS[:2], (categories, none[1], none[2])),
        (FIELDS[2:3], (none[0], bags, none[2])),
        (FIELDS[3:], (none[0], none[1], dense)),
    ):
        assert XDeepFM(fields, XDeepFMSettings())(*given).shape == (ROWS,)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_trace_answers_alike_for_other_rows_and_another_number_of_them(model, inputs):
    traced = torch.jit.trace(model, tuple(part[:2] for part in inputs))
    torch.testing.assert_close(traced(*inputs), model(*inputs))
    longer = (inputs[0], inputs[1].repeat(1, 1, 3), inputs[2])
    torch.testing.assert_close(traced(*longer), model(*longer))


@pytest.mark.parametrize("mixed", [None, 0, 1, 2])
def test_it_answers_on_the_gpu_and_refuses_a_mixture(model, inputs, mixed):
    with FakeTensorMode():
        gpu = torch.device("cuda", 0)
        tensors = (*model.named_parameters(), *model.named_buffers())
        state = {n: torch.empty(t.shape, dtype=t.dtype, device=gpu) for n, t in tensors}
        given = [torch.empty(part.shape, dtype=part.dtype, device=gpu) for part in inputs]
        if mixed is None:
            assert functional_call(model, state, tuple(given)).device == gpu
            return
        given[mixed] = given[mixed].cpu()
        with pytest.raises(RuntimeError, match=r"(?i)device"):
            functional_call(model, state, tuple(given))
