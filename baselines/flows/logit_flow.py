"""What flows of dequantised images share: the density under a logit, its training, and drawing by the inverse."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasDensity,
    HasLatent,
    ImageShape,
    Losses,
    Noise,
    OptimiserConfig,
    Phase,
    Trains,
)
from baselines.data.likelihood import bin_to_signed, dequantise, logit, quantise, unlogit
from baselines.nets.couplings import Flow


class LogitFlow(GenerativeModel, Trains, HasDensity, HasLatent):
    """log p(y) = log N(f(logit y)) + log|det df| + log|det dlogit|, exactly, for continuous y.

    The flow maps (B, C, H, W) to flat (B, CHW).
    """

    averaged: ClassVar[tuple[str, ...]] = ("flow",)
    selection: ClassVar[str | None] = "dequantised"
    network: ClassVar[str | None] = "flow"

    def __init__(self, shape: ImageShape, config: Any, flow: Flow) -> None:
        """config has `alpha`, the logit's (Dinh et al. 2017, sec. 4.1), `lr` and `training`."""
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.latent = shape.dims
        self.flow = flow

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of uniformly dequantised images."""
        optimiser = OptimiserConfig(lr=self.config.lr, decay="cosine")
        return (Phase("likelihood", ("flow",), self._loss, optimiser),)

    def _loss(self, batch: Batch, context: Context) -> Losses:
        y = dequantise(batch.images, self.shape.levels, context.uniform(*batch.images.shape))
        if context.step == 0:
            self.flow.initialise(logit(y, self.config.alpha)[0])
        return Losses(-self.log_density(y).mean() / self.shape.dims)

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y) in nats (B,); a little of its mass lies outside [0, 1], where the logit still is finite."""
        v, log_det_logit = logit(y, self.config.alpha)
        z, log_det = self.flow(v)
        log_normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        log_p: Tensor = log_normal + log_det + log_det_logit
        return log_p

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """One pass of the inverse flow from z ~ N(0, I), then the level whose bin holds each pixel."""
        self.check_draw(self.config, draw)
        return quantise(self._inverse(noise.normal("z", n, (self.latent,))), self.shape.levels)

    def decode(self, z: Tensor) -> Tensor:
        """f^-1(z) on the scale of levels, (B, C, H, W), clamped to [-1, 1]."""
        return bin_to_signed(self._inverse(z), self.shape.levels)

    def _inverse(self, z: Tensor) -> Tensor:
        v, _ = self.flow(z, reverse=True)
        return unlogit(v, self.config.alpha)
