"""The training loop: seeds, resuming, early stopping, and what it refuses."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newshelf.errors import TrainingError
from newshelf.training.loop import LossHistory, Objective, fit
from newshelf.training.run import Run

ROWS, WIDTH = 96, 6


class Regression(Objective):
    """A small network with dropout, on rows that are drawn once."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(ROWS, WIDTH, generator=generator)
        self.truth = self.rows @ torch.randn(WIDTH, generator=generator)
        torch.manual_seed(1)
        self.network = nn.Sequential(
            nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 1)
        )

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        error = F.mse_loss(self.network(self.rows[batch]).squeeze(1), self.truth[batch])
        return {"loss": error, "root": error.detach().sqrt()}


class Killed(BaseException):
    """As a signal would end it: nobody catches this."""


def batches(_epoch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return torch.randperm(ROWS, generator=generator).split(16)


def learn(run: Run, *, epochs: int = 6, die_in: int | None = None, **asked) -> tuple:
    """A whole loop; with ``die_in``, killed at the start of that epoch."""
    objective = Regression()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, epochs * 6)

    def before(epoch: int) -> None:
        if epoch == die_in:
            raise Killed

    history = fit(
        "demo", objective, batches, optimizer, run,
        epochs=epochs, schedule=schedule, before_epoch=before, **asked,
    )  # fmt: skip
    return objective, history


def weights(objective: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.state_dict().items()}


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


def test_it_learns_and_measures_each_epoch(said):
    objective, history = learn(Run(3, said.console))
    assert len(history.loss) == 6
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert set(history.losses[0]) == {"loss", "root"}
    assert history.best_epoch == 5
    assert not objective.training


def test_the_seed_decides_everything(said):
    first, again, other = (learn(Run(seed, said.console))[0] for seed in (3, 3, 4))
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.parametrize("died", [1, 3, 5])
@pytest.mark.parametrize("watched", [False, True])
def test_a_broken_run_goes_on_to_the_same_weights(tmp_path, said, died, watched):
    asked = {}
    whole_values, values = iter([0.1, 0.5, 0.3, 0.4, 0.2, 0.1]), [0.1, 0.5, 0.3, 0.4, 0.2, 0.1]
    if watched:
        asked = {"validate": lambda: next(whole_values)}
    whole, expected = learn(Run(3, said.console), **asked)

    run = Run(3, said.console, tmp_path / "kept", "same")
    left = iter(values)
    asked = {"validate": lambda: next(left)} if watched else {}
    with pytest.raises(Killed):
        learn(run, die_in=died, **asked)
    torch.manual_seed(999)
    resumed, history = learn(run, **asked)
    assert equal(whole, resumed)
    assert vars(history) == vars(expected)
    assert f"after epoch {died} of 6" in said.text
    assert history.best_epoch == (1 if watched else 5)


def test_a_loop_that_was_done_is_not_done_again(tmp_path, said):
    run = Run(3, said.console, tmp_path, "same")
    first, history = learn(run)
    drawn = torch.rand(3)
    seen = []
    objective = Regression()
    again = fit(
        "demo", objective, lambda *_: seen.append(1) or [], torch.optim.AdamW(
            objective.parameters(), lr=0.02
        ), run, epochs=6,
    )  # fmt: skip
    assert seen == []
    assert again.losses == history.losses
    assert equal(first, objective)
    assert "was done before" in said.text
    # Whatever is drawn after the loop is the same, too.
    assert torch.equal(torch.rand(3), drawn)


def test_what_another_run_kept_is_not_used(tmp_path, said):
    with pytest.raises(Killed):
        learn(Run(3, said.console, tmp_path, "one"), die_in=4)
    resumed, _ = learn(Run(3, said.console, tmp_path, "other"))
    assert equal(resumed, learn(Run(3, said.console))[0])
    assert "goes on" not in said.text


def test_a_damaged_file_is_said_and_begun_anew(tmp_path, said):
    with pytest.raises(Killed):
        learn(Run(3, said.console, tmp_path, "one"), die_in=4)
    kept = tmp_path / "demo.pt"
    kept.write_bytes(kept.read_bytes()[:500])
    resumed, _ = learn(Run(3, said.console, tmp_path, "one"))
    assert equal(resumed, learn(Run(3, said.console))[0])
    assert "demo.pt cannot be resumed" in said.text


def test_a_kill_while_keeping_leaves_the_epoch_before(tmp_path, said, monkeypatch):
    run = Run(3, said.console, tmp_path, "one")
    save, count = torch.save, []

    def half(value, path: Path) -> None:
        count.append(1)
        save(value, path)
        if len(count) == 3:
            path.write_bytes(path.read_bytes()[:200])
            raise Killed

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        learn(run)
    monkeypatch.undo()
    resumed, _ = learn(run)
    assert "after epoch 2 of 6" in said.text
    assert equal(resumed, learn(Run(3, said.console))[0])


def test_patience_stops_and_the_best_epochs_weights_come_back(said):
    values = iter([0.2, 0.9, 0.9, 0.8, 0.7])
    at_best = {}

    def validate() -> float:
        value = next(values)
        if not at_best and value == 0.9:
            at_best.update(weights(objective))
        return value

    objective = Regression()
    history = fit(
        "demo", objective, batches, torch.optim.AdamW(objective.parameters()),
        Run(3, said.console), epochs=30, validate=validate, patience=3,
    )  # fmt: skip
    # As good is not better: three epochs after the second.
    assert history.validation == [0.2, 0.9, 0.9, 0.8, 0.7]
    assert history.best_epoch == 1
    assert all(torch.equal(value, at_best[name]) for name, value in weights(objective).items())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(said, value):
    objective = Regression()
    objective.truth[7] = value
    with pytest.raises(TrainingError, match=r"demo, epoch 1: the loss became (nan|inf)"):
        fit(
            "demo", objective, batches, torch.optim.AdamW(objective.parameters()),
            Run(3, said.console), epochs=2,
        )  # fmt: skip


def test_a_validation_that_is_no_number_is_refused(said):
    with pytest.raises(TrainingError, match="epoch 1: the validation became nan"):
        learn(Run(3, said.console), validate=lambda: math.nan)


def test_an_epoch_without_a_batch_is_refused(said):
    objective = Regression()
    with pytest.raises(TrainingError, match="demo, epoch 1 has no batch"):
        fit(
            "demo", objective, lambda *_: [], torch.optim.AdamW(objective.parameters()),
            Run(3, said.console), epochs=2,
        )  # fmt: skip


def test_batches_are_asked_for_one_at_a_time(said):
    """An epoch of pictures need not fit into memory."""
    objective, alive = Regression(), []

    def one_by_one(_epoch, generator):
        for rows in torch.randperm(ROWS, generator=generator).split(16):
            alive.append(len(alive))
            yield rows
            assert objective.network[0].weight.grad is not None

    fit(
        "demo", objective, one_by_one, torch.optim.AdamW(objective.parameters()),
        Run(3, said.console), epochs=1,
    )  # fmt: skip
    assert len(alive) == 6


def test_bf16_computes_so_and_keeps_its_weights(said):
    objective = Regression()
    kinds = set()
    objective.network[0].register_forward_hook(lambda _m, _i, output: kinds.add(output.dtype))
    history = fit(
        "demo", objective, batches, torch.optim.AdamW(objective.parameters(), lr=0.02),
        Run(3, said.console), epochs=6, bf16=True,
    )  # fmt: skip
    assert kinds == {torch.bfloat16}
    assert {parameter.dtype for parameter in objective.parameters()} == {torch.float32}
    assert history.loss[-1] < 0.7 * history.loss[0]


def test_history_says_the_minimised_loss():
    assert LossHistory([{"loss": 2.0, "x": 1.0}, {"loss": 1.0, "x": 3.0}]).loss == [2.0, 1.0]
