"""Two real processes over gloo, beside one process that averages what they would."""

import pytest
import torch
from torch import multiprocessing

from newshelf.training.distributed import share
from newshelf.training.loop import _seeded
from tests.unit.training.processes import GROUP, METHOD
from tests.unit.training.two_processes import EPOCHS, Two, batches, work

pytestmark = pytest.mark.xdist_group(GROUP)
CASES = ("plain", "thawed", "stopped", "kept", "again")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    multiprocessing.start_processes(work, (folder,), nprocs=2, start_method=METHOD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def tensors(result: dict) -> dict[str, torch.Tensor]:
    return {key: value for key, value in result.items() if isinstance(value, torch.Tensor)}


def one_process(thaw: bool = False) -> tuple[Two, list[float]]:
    """Steps on the mean loss of two batches; where one is left, it counts alone."""
    objective, losses = Two(), []
    for epoch in range(EPOCHS):
        parts = list(batches(epoch, _seeded(5, "demo", epoch)))
        step_losses = []
        for start in range(0, len(parts), 2):
            step = epoch * len(parts) + start
            rate = 0.1 * (1 - 0.9 * min(step, EPOCHS * 5) / (EPOCHS * 5))
            taken = [objective(part)["loss"] for part in parts[start : start + 2]]
            loss = torch.stack(taken).mean()
            objective.zero_grad()
            loss.backward()
            with torch.no_grad():
                for name, p in objective.named_parameters():
                    if p.grad is not None and not (thaw and epoch < 2 and "body" in name):
                        p.sub_(rate * p.grad)
            step_losses.append(float(loss.detach()))
        losses.append(sum(step_losses) / len(step_losses))
    return objective, losses


@pytest.mark.parametrize("case", CASES)
def test_both_processes_have_the_same_weights_and_history(found, case):
    first, second = (result[case] for result in found)
    assert first["losses"] == second["losses"]
    for name, value in tensors(first).items():
        assert torch.equal(value, tensors(second)[name]), name


@pytest.mark.parametrize("thaw", [False, True])
def test_a_step_is_one_on_the_mean_of_both_batches(found, thaw):
    result = found[0]["thawed" if thaw else "plain"]
    expected, losses = one_process(thaw)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(result[name], value, atol=1e-5, rtol=1e-4)
    assert [one["loss"] for one in result["losses"]] == pytest.approx(losses, rel=1e-4)


def test_layers_that_are_thawed_learn_from_both(found):
    start = Two().state_dict()
    assert not torch.equal(found[0]["thawed"]["body.weight"], start["body.weight"])


def test_the_schedule_has_the_length_of_one_process(found):
    assert found[0]["plain"]["rates"] == pytest.approx([0.01])


def test_the_first_process_decides_when_to_stop(found):
    # Its validation never gets better than in the first epoch.
    assert [len(result["stopped"]["losses"]) for result in found] == [3, 3]


def test_what_was_kept_is_read_by_the_first_and_told_to_the_other(found):
    for result in found:
        assert result["again"]["losses"] == result["kept"]["losses"]
        for name, value in tensors(result["kept"]).items():
            assert torch.equal(value, result["again"][name])


def test_the_first_process_goes_alone_then_the_other(found):
    assert [result["cached"] for result in found] == [False, True]


def test_one_process_takes_every_batch_as_it_is():
    assert list(share("abc")) == [("a", 1), ("b", 1), ("c", 1)]
