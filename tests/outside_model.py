"""A third party's model, as a user would write it: one file, outside the project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLikelihood,
    ImageShape,
    Losses,
    Model,
    Nats,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
    Trains,
)
from baselines.types import Kind


@dataclass(frozen=True)
class Config:
    """Independent pixels, learned by gradient."""

    lr: float = 0.05
    fail_at: int = -1  # the step at which it breaks, for tests of failure
    slow_s: float = 0.0  # a pause in each step, for tests of interruption
    training: Training = Training(batch_size=32)


class Pixels(GenerativeModel, Trains, HasLikelihood):
    """P(x) = prod_i softmax(table_i)[x_i]."""

    network = "table"
    selection = "exact"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"exact": "exact"}

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config, self.training_config = shape, config, config.training
        self.table = Table(shape)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("fit", ("table",), self.loss, OptimiserConfig(lr=self.config.lr)),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        if context.step == self.config.fail_at:
            raise RuntimeError("broken as told")
        if self.config.slow_s:
            import time

            time.sleep(self.config.slow_s)
        return Losses(self.nats(batch.images, "exact", Noise(0)).total.mean())

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        log_p = self.table().log_softmax(-1).expand(len(x), -1, -1)
        return Nats(-log_p.gather(2, x.flatten(1).long().unsqueeze(2)).squeeze(2).sum(1))

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        cdf = self.table().softmax(-1).cumsum(-1)
        u = noise.uniform("pixels", n, (self.shape.dims, 1))
        return (u > cdf[..., :-1]).sum(-1).to(torch.uint8).view(n, *self.shape.chw)


class Table(nn.Module):
    """One logit a pixel and level."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(shape.dims, shape.levels))

    def forward(self) -> Tensor:
        return self.logits


MODEL = Model("Independent pixels by gradient", "nobody, for a test", Config, Pixels)
