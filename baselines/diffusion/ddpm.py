"""DDPM: predicts the noise that was added to an image (Ho et al. 2020, arXiv:2006.11239), trained on L_simple (eq. 14).

DDIM (Song et al. 2020, arXiv:2010.02502) is another sampler of the same weights. The variational bound of eq. 5 is
summed over all T timesteps, its parts L_T, L_{t-1} and L_0 apart; L_0 is the discretised Gaussian of eq. 13.
Departure: a batch's timesteps are stratified over 0 .. T - 1, which leaves the loss unbiased and less noisy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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
from baselines.data.likelihood import discretised_gaussian, from_signed, to_signed
from baselines.diffusion.process import Process, make_process
from baselines.diffusion.samplers import SAMPLERS, STEPS
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE, UNet
from baselines.types import Kind


@dataclass(frozen=True)
class Config:
    """Process, network and optimiser; the defaults are tuned for 8x8 digits."""

    timesteps: int = 1000  # T
    schedule: Literal["linear", "quadratic", "sigmoid", "cosine"] = "cosine"
    beta_start: float = 1e-4  # of a chain of 1000 steps, where the schedule has one; pixels in [-1, 1]
    beta_end: float = 0.02
    widths: tuple[int, ...] = (24, 48)  # channels of each resolution of the U-Net
    blocks: int = 1  # residual blocks at each, on the way down and on the way up
    attention: bool = False
    dropout: float = 0.0
    bound_variance: Literal["beta", "beta_tilde"] = "beta"  # of the reverse steps in the variational bound
    lr: float = 4e-3
    warmup: float = 0.02  # fraction of the budget
    training: Training = Training(batch_size=32, ema_decay=0.999)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 2 or self.blocks < 1:
            raise UserError(f"ddpm: expected widths >= 2 and blocks >= 1, got {self.widths} and {self.blocks}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"ddpm: expected a dropout in [0, 1), got {self.dropout}")


class Ddpm(GenerativeModel, Trains, HasLikelihood):
    """A U-Net that predicts eps from x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps and t; `native` is `ddpm` with T."""

    samplers: ClassVar[tuple[str, ...]] = ("native", *SAMPLERS)
    averaged: ClassVar[tuple[str, ...]] = ("unet",)
    network: ClassVar[str | None] = "unet"
    draw_keys: ClassVar[tuple[str, ...]] = ("steps", "eta", "spacing", "variance", "clip", "options")
    likelihoods: ClassVar[Mapping[str, Kind]] = {"vlb": "upper_bound"}

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.process = _process(config)
        channels = shape.channels
        self.unet = UNet(channels, channels, config.widths, config.blocks, config.attention, config.dropout)

    def eps(self, x_t: Tensor, t: int) -> Tensor:
        """The predicted noise (B, C, H, W), all images at timestep t in 0 .. T - 1."""
        time = torch.full((1,), t * TIME_RANGE / self.config.timesteps, device=x_t.device, dtype=x_t.dtype)
        out: Tensor = self.unet(x_t, time)
        return out

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """One: L_simple."""
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="cosine")
        return (Phase("simple", ("unet",), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """Mean square error of the predicted noise at random timesteps, one in each of B equal parts of the chain."""
        x_0 = to_signed(batch.images, self.shape.levels)
        n, total = len(x_0), self.config.timesteps
        place = (torch.arange(n, device=x_0.device) + context.uniform(n)) / n
        t = (place * total).long().clamp(max=total - 1)
        eps = context.normal(*x_0.shape)
        signal, noise = (table.float().to(x_0.device)[t].sqrt() for table in (self.process.abar, self.process.noise))
        x_t = signal.view(-1, 1, 1, 1) * x_0 + noise.view(-1, 1, 1, 1) * eps
        return Losses(F.mse_loss(self.unet(x_t, t * (TIME_RANGE / total)), eps))

    # Likelihood

    @torch.no_grad()
    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """The variational bound with one draw of x_t for each of the T timesteps; parts L_T, L_{t-1} (summed), L_0."""
        x_0 = to_signed(x, self.shape.levels)
        draws = noise.normals("vlb", len(x), self.shape.chw, self.config.timesteps)
        middle, last = x_0.new_zeros(len(x)), x_0.new_zeros(len(x))
        for t in range(self.config.timesteps):
            x_t = self.process.diffuse(x_0, t, next(draws))
            x_0_hat = self.process.predict_x0(x_t, self.eps(x_t, t), t).clamp_(-1, 1)
            variance = self.process.variance(t, self.config.bound_variance)
            if t == 0:
                log_std = torch.tensor(0.5 * math.log(variance), device=x.device)
                last = -discretised_gaussian(x, x_0_hat, log_std, self.shape.levels).flatten(1).sum(1)
            else:
                middle += self.process.transition_nats(x_0, x_0_hat, t, variance)
        first = self.process.prior_nats(x_0)
        return Nats(first + middle + last, {"L_T": first, "L_{t-1}": middle, "L_0": last})

    # Images

    @classmethod
    def check_draw(cls, config: Config, draw: Draw) -> None:
        """Whether the sampler can make these steps of this chain."""
        super().check_draw(config, draw)
        STEPS[_named(draw).sampler](_process(config), _named(draw))

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """From x_T ~ N(0, I) by the draw's sampler, over its S of the T timesteps."""
        self.check_draw(self.config, draw)
        draw = _named(draw)
        x_t = noise.normal("x_T", n, self.shape.chw)
        steps = noise.normals("steps", n, self.shape.chw, draw.steps or self.config.timesteps)
        x_0 = SAMPLERS[draw.sampler](x_t, self.eps, self.process, draw, steps)
        return from_signed(x_0, self.shape.levels)


def _process(config: Config) -> Process:
    return make_process(config.schedule, config.timesteps, config.beta_start, config.beta_end)


def _named(draw: Draw) -> Draw:
    """`native` is ancestral sampling."""
    return replace(draw, sampler="ddpm") if draw.sampler == "native" else draw


MODEL = Model("DDPM", "Ho et al. 2020, arXiv:2006.11239", Config, Ddpm)
