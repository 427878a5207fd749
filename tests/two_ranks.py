"""Trains a small model by all ranks of a torchrun, in float64; what `tests/test_sharing.py` compares with one process.

torchrun --nproc-per-node 2 tests/two_ranks.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines import trainer
from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLikelihood,
    Losses,
    Nats,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
    Trains,
)
from baselines.data.dataset import Dataset, Split
from baselines.sharing import ALONE, Team
from baselines.types import Budget, ImageShape, Kind

SHAPE = ImageShape(1, 4, 4, 5)
STEPS = 30


class Everything(GenerativeModel, Trains, HasLikelihood):
    """Two phases, dropout of both kinds, noise, stratified places, a memory of the whole batch, EMA, selection."""

    averaged = ("net",)
    selection = "exact"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"exact": "exact"}
    memory: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shape = SHAPE
        self.training_config = Training(batch_size=8, ema_decay=0.9, clip_norm=0.5, validations=5)
        self.net = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 16 * 5))
        self.maps = nn.Conv2d(1, 6, 3, padding=1)
        self.critic = nn.Linear(16, 1)
        self.first = nn.Parameter(torch.zeros(16), requires_grad=False)
        self.register_buffer("memory", torch.zeros(8))

    def phases(self) -> tuple[Phase, ...]:
        fast = OptimiserConfig(lr=1e-2, warmup=0.1, decay="cosine")
        return (
            Phase("critic", ("critic",), self.critic_loss, OptimiserConfig("sgd", lr=1e-2), repeat=2),
            Phase("net", ("net", "maps"), self.net_loss, fast, every=2),
        )

    def logits(self, x: Tensor) -> Tensor:
        scaled = x.double() / 4 - self.first.view(1, 1, 4, 4)
        features = F.dropout2d(self.maps(scaled), 0.3, self.training).mean(1).flatten(1)
        out: Tensor = self.net(features).view(-1, 5, 16)
        return out

    def critic_loss(self, batch: Batch, context: Context) -> Losses:
        real = self.critic(batch.images.double().flatten(1))
        fake = self.critic(torch.cat([context.normal(len(batch.images), 16), context.uniform(len(batch.images), 16)]))
        chosen = context.integers(3, len(batch.images)).double()
        total = F.softplus(-real).mean() + F.softplus(fake).mean()
        return Losses(total + (chosen * real.squeeze(1)).mean(), {"accuracy": (real > 0).double().mean()})

    def net_loss(self, batch: Batch, context: Context) -> Losses:
        if context.step == 0:  # as flows do: statistics of the first batch
            with torch.no_grad():
                self.first.copy_((batch.images.double() / 4).mean(0).flatten())
        logits = self.logits(batch.images)
        each = F.cross_entropy(logits, batch.images.flatten(1).long(), reduction="none").mean(1)
        self.memory.copy_(context.share.every(each))
        weights = 0.5 + context.strata(len(each))
        return Losses((weights * each).mean() - 0.01 * self.critic(logits.mean(1)).mean(), {"plain": each.mean()})

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        return (noise.uniform("x", n, SHAPE.chw) * 5).to(torch.uint8)

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        return Nats(F.cross_entropy(self.logits(x), x.flatten(1).long(), reduction="none").sum(1))


def a_trainer(folder: Path, team: Team = ALONE, budget: Budget | None = None) -> trainer.Trainer:
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(1)
        images = torch.randint(0, 5, (50, *SHAPE.chw), dtype=torch.uint8)
        splits = Split(images[:30]), Split(images[30:40]), Split(images[40:])
        data = Dataset("toy", SHAPE, *splits, "here", "none")
        return trainer.Trainer(Everything(), data, 7, budget or Budget(images=16 * STEPS), folder, team=team)
    finally:
        torch.set_default_dtype(torch.float32)


def train(run: trainer.Trainer, stop_after: int | None = None) -> trainer.Trainer:
    torch.set_default_dtype(torch.float64)
    try:
        run.run(stop_after)
    finally:
        torch.set_default_dtype(torch.float32)
    return run


def main(folder: Path) -> None:
    """All of a training in `whole`, the first steps of one in `begun`, the rest of one in `ended`."""
    from bench.team import Joined

    with Joined("cpu") as team:
        assert team.size == 2
        runs = {name: a_trainer(folder / name, team) for name in ("whole", "begun", "ended")}
        for name, run in runs.items():
            train(run, STEPS // 2 if name == "begun" else None)
        rows = torch.arange(3.0) + 10 * team.rank
        assert team.gathered(rows).tolist() == [0, 1, 2, 10, 11, 12]
        assert team.told(team.rank) == 0
        if team.rank == 0:
            told = {
                name: {
                    "curve": run.state.curve,
                    "processes": run.state.processes,
                    "best_images": run.state.best_images,
                    "weights": {key: tensor.tolist() for key, tensor in run.model.state_dict().items()},
                }
                for name, run in runs.items()
            }
            (folder / "told.json").write_text(json.dumps(told))
    Joined.leave(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
