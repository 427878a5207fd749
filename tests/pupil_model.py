"""Third parties' models for tests: one that learns from another's checkpoint, whose config must fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.contract import (
    Batch,
    Context,
    Distils,
    Draw,
    GenerativeModel,
    Given,
    ImageShape,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
)


@dataclass(frozen=True)
class Config:
    """A mean image, learned towards the teacher's."""

    lr: float = 0.05
    slow_s: float = 0.0  # a pause in each step, for tests of interruption
    teachers_lr: float = 0.05  # what the teacher's config must say
    training: Training = Training(batch_size=32, ema_decay=0.0)


class Pupil(GenerativeModel, Distils):
    """Learns the mean of the teacher's pixels; draws it for every image."""

    network = "mean"
    told: Tensor

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape, self.config, self.training_config = shape, config, config.training
        self.mean = Mean(shape)
        self.register_buffer("told", torch.full(shape.chw, -1.0))

    @classmethod
    def teacher(cls, config: Config) -> tuple[str, Mapping[str, Any]]:
        return "outside_model", {"lr": config.teachers_lr}

    def learn_from(self, teacher: GenerativeModel) -> None:
        with torch.no_grad():
            self.told.copy_(teacher.sample(200, Draw(), Noise(0)).float().mean(0))

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("imitate", ("mean",), self.loss, OptimiserConfig(lr=self.config.lr)),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        assert float(self.told.min()) >= 0, "it was taught before it was trained"
        if self.config.slow_s:
            import time

            time.sleep(self.config.slow_s)
        return Losses((self.mean() - self.told).square().mean())

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        image = self.mean().round().clamp(0, self.shape.levels - 1).to(torch.uint8)
        return image.expand(n, *self.shape.chw).clone()


class Mean(nn.Module):
    """One image."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(shape.chw))

    def forward(self) -> Tensor:
        return self.image


MODEL = Model("A pupil", "nobody, for a test", Config, Pupil)
