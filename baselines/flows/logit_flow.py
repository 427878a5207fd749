"""What flows of images share: logit preprocessing, dequantisation, training by the bound, sampling by the inverse."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.contract import (
    Batch,
    Context,
    Dequantises,
    Draw,
    GenerativeModel,
    Given,
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
from baselines.nets.dequantiser import make_dequantiser


class LogitFlow(GenerativeModel, Trains, HasLatent, Dequantises):
    """log p(y) = log N(f(logit y)) + log|det df| + log|det dlogit|, exactly, for continuous y.

    The dequantisation is uniform or, learned together with the flow, variational.
    """

    averaged: ClassVar[tuple[str, ...]] = ("flow", "dequantiser")
    selection: ClassVar[str | None] = "dequantised"
    network: ClassVar[str | None] = "flow"
    config: Any  # has `alpha`, `lr`, `training`, `dequantisation` and `dequantiser`

    def __init__(self, shape: ImageShape, config: Any, flow: Flow) -> None:
        """The flow maps (B, C, H, W) to flat (B, CHW)."""
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.latent = shape.dims
        self.flow = flow
        self.dequantiser = make_dequantiser(config.dequantisation, shape, config.dequantiser)
        self.dequantisation = self.dequantiser.name

    def phases(self) -> tuple[Phase, ...]:
        """Maximum likelihood of dequantised images, jointly with the dequantisation if that is learned."""
        optimiser = OptimiserConfig(lr=self.config.lr, decay="cosine")
        return (Phase("likelihood", ("flow", "dequantiser"), self._loss, optimiser),)

    def _loss(self, batch: Batch, context: Context) -> Losses:
        u, log_q = self.dequantise(batch.images, context.uniform(*batch.images.shape))
        y = dequantise(batch.images, self.shape.levels, u)
        if context.step == 0:
            self.flow.initialise(logit(y, self.config.alpha)[0])
        return Losses((log_q - self.log_density(y)).mean() / self.shape.dims)

    def dequantise(self, x: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """u ~ q(u | x) and log q(u | x)."""
        u, log_q = self.dequantiser(x, uniform)
        return u, log_q

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
        return quantise(self._inverse(self.prior(n, draw, noise)), self.shape.levels)

    def prior(self, n: int, draw: Draw, noise: Noise) -> Tensor:
        """z of n images, (n, latent)."""
        return noise.normal("z", n, (self.latent,))

    def decode(self, z: Tensor) -> Tensor:
        """f^-1(z) on the scale of levels, (B, C, H, W), clamped to [-1, 1]; z is the noise of all scales."""
        return bin_to_signed(self._inverse(z), self.shape.levels)

    def _inverse(self, z: Tensor) -> Tensor:
        v, _ = self.flow(z, reverse=True)
        return unlogit(v, self.config.alpha)
