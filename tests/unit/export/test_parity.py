from dataclasses import replace

import pytest
import torch
from torch import nn

from export.parity import (
    TOLERANCE,
    ParityCase,
    ParityResult,
    Subject,
    check_case,
    encoder_cases,
    limit_of,
    report,
    scorer_cases,
)
from newshelf.errors import ParityError
from newshelf.nn.spec import ScorerSpec
from newshelf.serving.runtimes.base import Graph
from tests.unit.export.tiny_checkpoint import tiny_spec

CASE = ParityCase("batch 2", (torch.tensor([[0.5], [-0.5]]),))


class Fake:
    """A runtime that answers what it is told to."""

    def __init__(self, answer):
        self.answer = answer

    def run(self, inputs):
        return {"double": self.answer(inputs["x"]).numpy()}


@pytest.fixture
def subject():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    graph = Graph("doubler", ("x",), ("double",))
    return Subject(graph, Double(), CASE.inputs, ({0: "rows"},), lambda: iter([CASE]), frozenset())


def test_difference_within_the_limit_passes_and_is_reported(subject):
    runtimes = {"close": Fake(lambda x: 2 * x + 5e-5), "equal": Fake(lambda x: x + x)}
    close, equal = check_case(subject, runtimes, CASE)
    assert close.passed
    assert close.max_abs_diff == pytest.approx(5e-5, rel=1e-2)
    assert equal == ParityResult("doubler", "equal", "batch 2", "double", 0.0, TOLERANCE, True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: 2 * x + 2e-4, r"double is off by 0\.0002"),
        (lambda x: 2 * x * torch.nan, "off by nan"),
        (lambda x: torch.where(x > 0, torch.inf, 2 * x), "off by inf"),
        (lambda x: (2 * x)[:1], r"is \(1, 1\) torch\.float32 where the model gives \(2, 1\)"),
        (lambda x: (2 * x).double(), "float64"),
    ],
)
def test_anything_else_fails_and_says_where(subject, answer, message):
    with pytest.raises(ParityError, match=rf"doubler \(bad\), batch 2: .*{message}"):
        check_case(subject, {"good": Fake(lambda x: 2 * x), "bad": Fake(answer)}, CASE)


def test_model_that_gives_nan_itself_fails(subject):
    case = ParityCase("broken", (torch.tensor([[torch.nan]]),))
    with pytest.raises(ParityError, match="nan"):
        check_case(subject, {"same": Fake(lambda x: 2 * x)}, case)


def test_graph_that_does_not_run_fails(subject):
    def refuse(x):
        raise RuntimeError("invalid dimensions for input x")

    with pytest.raises(ParityError, match=r"\(bad\), batch 2 does not run: invalid dimensions"):
        check_case(subject, {"bad": Fake(refuse)}, CASE)


def test_unbounded_outputs_are_compared_relative_to_their_scale(subject):
    large = ParityCase("large", (torch.tensor([[100.0]]),))
    runtimes = {"near": Fake(lambda x: 2 * x + 0.01)}
    with pytest.raises(ParityError):
        check_case(subject, runtimes, large)
    unbounded = replace(subject, unbounded=frozenset({"double"}))
    (comparison,) = check_case(unbounded, runtimes, large)
    assert comparison.limit == pytest.approx(200 * TOLERANCE)
    assert limit_of(torch.tensor([0.01]), unbounded=True) == TOLERANCE


def test_report_does_not_pass_with_a_failure_in_it():
    good = ParityResult("encoder", "onnxruntime", "batch 1", "embedding", 1e-6, 1e-4, True)
    bad = replace(good, case="batch 2", max_abs_diff=1.0, passed=False)
    assert report([good], "v")["passed"] is True
    written = report([good, bad], "v")
    assert written["passed"] is False
    assert written["worst"] == {"encoder onnxruntime": 1.0}


def test_encoder_cases_are_deterministic_and_within_the_model():
    spec = tiny_spec().encoder
    for first, second in zip(encoder_cases(spec), encoder_cases(spec), strict=True):
        assert first.name == second.name
        for a, b in zip(first.inputs, second.inputs, strict=True):
            assert torch.equal(a, b)
        image, image_row, ids, mask, text_row, attributes = first.inputs
        batch = len(attributes)
        assert len(image) == len(image_row) >= 1
        assert ids.shape == mask.shape
        assert len(ids) == len(text_row) >= 1
        for row in (image_row, text_row):
            assert len(set(row.tolist())) == len(row)
            assert 0 <= int(row.min()) <= int(row.max()) <= batch
        assert mask.sum(dim=1).max() == ids.shape[1]
        assert int(attributes.max()) < spec.attributes.buckets


def test_pictures_look_like_pictures():
    *_, case = (c for c in encoder_cases(tiny_spec().encoder) if c.name.endswith("no text"))
    pictures = case.inputs[0]
    neighbours = (pictures[..., 1:] - pictures[..., :-1]).abs().mean()
    assert pictures.std() > 0.2
    assert neighbours < 0.5 * pictures.std()


def test_scorer_cases_include_histories_without_any_item():
    cases = list(scorer_cases(ScorerSpec(width=4, max_history=3)))
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        _, mask, candidates = case.inputs
        empty = not mask[-1].any()
        assert empty == (len(mask) > 1 or case.name.endswith("all masked"))
        assert len(candidates) == len(mask)
