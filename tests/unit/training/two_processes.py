"""What each of two processes does in ``test_distributed.py``; each runs ``work``."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from newshelf.training.distributed import first_alone, is_first
from newshelf.training.loop import LossHistory, Objective, fit
from newshelf.training.run import Run

ROWS, WIDTH, BATCH, EPOCHS = 92, 5, 20, 4


class Two(Objective):
    """A linear layer under two heads; the second is only asked about some batches."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(ROWS, WIDTH, generator=generator)
        self.truth = torch.randn(ROWS, 2, generator=generator)
        torch.manual_seed(1)
        self.body = nn.Linear(WIDTH, 8)
        self.one, self.two = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        hidden = self.body(self.rows[batch]).tanh()
        losses = {"loss": F.mse_loss(self.one(hidden).squeeze(1), self.truth[batch, 0])}
        if batch[0] % 2:
            other = F.mse_loss(self.two(hidden).squeeze(1), self.truth[batch, 1])
            losses = {"loss": losses["loss"] + other, "two": other.detach()}
        return losses


def batches(_epoch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Five, the last one shorter: two processes share them unevenly."""
    return torch.randperm(ROWS, generator=generator).split(BATCH)


def learn(run: Run, *, thaw: bool = False, **asked) -> tuple[Two, LossHistory, list[float]]:
    objective = Two()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, EPOCHS * 5)

    def before(epoch: int) -> None:
        objective.body.requires_grad_(epoch >= 2)

    history = fit(
        "demo", objective, batches, optimizer, run,
        epochs=EPOCHS, schedule=schedule, before_epoch=before if thaw else None, **asked,
    )  # fmt: skip
    return objective, history, schedule.get_last_lr()


def work(rank: int, folder: Path) -> None:
    """Leave what this process came to in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    found: dict[str, object] = {}
    quiet = Run(5, quiet=True)
    for name, asked in {
        "plain": {},
        "thawed": {"thaw": True},
        # The second process would go on for ever.
        "stopped": {"validate": lambda: -float(rank), "patience": 2},
        "kept": {},
    }.items():
        run = Run(5, quiet=True, state=folder / "state", identity="x") if name == "kept" else quiet
        objective, history, rates = learn(run, **asked)
        found[name] = {**objective.state_dict(), "losses": history.losses, "rates": rates}
    # A loop that was kept is the same to both, though only the first one reads it.
    again, history, _ = learn(Run(5, quiet=True, state=folder / "state", identity="x"))
    found["again"] = {**again.state_dict(), "losses": history.losses, "rates": []}
    with first_alone():
        seen = (folder / "cache").exists()
        if is_first():
            (folder / "cache").write_text("made")
    found["cached"] = seen
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
