"""DPM: Gaussian reverse steps of learned mean and variance, trained on the full variational bound.

Sohl-Dickstein et al. 2015 (arXiv:1503.03585): the first diffusion model. Each reverse step is a perturbation of the
forward one: variance sigmoid(z / sqrt(T) + logit(beta_t)) (the appendix; scaled as in the released code), mean
sqrt(1 - beta_t) x_t plus what the network adds; the loss is the bound (eq. 14) at random timesteps. The forward rates
are those of the released code, beta_t about 1 / (T - t + 1), with a small beta_1.

Departures: the suite's U-Net with a time embedding, where the paper has multi-scale convolutions with temporal bumps;
what the network adds to the mean is written as a prediction (v by default), which is linear in it; the last step is
the discretised decoder of Ho et al. 2020, eq. 13, so that the bound is in bits of discrete pixels, where the paper
dequantises and fixes that step to the forward one; timesteps are stratified within a batch and importance-sampled;
rates are not learned (the paper's text learns them, its released code does not).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import Batch, Context, ImageShape, Losses, Model, OptimiserConfig, Phase, Training
from baselines.data.likelihood import to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.prediction import Prediction
from baselines.diffusion.process import Process, check_unused_betas, first_beta, make_process, with_first_beta
from baselines.diffusion.reverse_variance import BoundVariance, ReverseVariance, check_variance, denoiser_of
from baselines.diffusion.timesteps import LossHistory, draw_timesteps
from baselines.diffusion.variational import ChainTables, Kernel
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE, UNet

_ONE_VARIANCE = 1e-9  # of log beta - log beta_tilde: less has no more digits than float32; x_t is noise, beta is right


@dataclass(frozen=True)
class Config:
    """Process, network and optimiser; the defaults are tuned for 8x8 digits."""

    timesteps: int = 1000  # T
    schedule: Literal["erasing", "linear", "quadratic", "sigmoid", "cosine"] = "erasing"
    beta_1: float | None = None  # variance of the first step; None: of a quarter of a level (released code: 0.001)
    beta_start: float = 1e-4  # of the others, as in ddpm; pixels in [-1, 1]
    beta_end: float = 0.02
    prediction: Prediction = "v"
    importance: bool = True  # timesteps by their losses (Nichol and Dhariwal 2021, eq. 18)
    widths: tuple[int, ...] = (24, 48)  # channels of each resolution of the U-Net
    blocks: int = 1  # residual blocks at each, on the way down and on the way up
    attention: bool = False
    dropout: float = 0.0
    bound_variance: BoundVariance = "learned"  # of the reverse steps in the variational bound
    analytic_variance: bool = False  # estimate it after training: variance "analytic" of samplers and bound
    lr: float = 4e-3
    warmup: float = 0.02  # fraction of the budget
    training: Training = Training(batch_size=32, ema_decay=0.999)

    def __post_init__(self) -> None:
        check_variance("dpm", self)
        if self.beta_1 is not None and not 0 < self.beta_1 < 1:
            raise UserError(f"dpm: expected 0 < beta_1 < 1, got {self.beta_1}")


class Dpm(ReverseVariance):
    """A U-Net that is shown x_t and t, and answers in 2 C channels: the prediction of the mean, and z."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        self._chain = replace(
            self._chain, process=with_first_beta(self.process, config.beta_1 or first_beta(shape.levels))
        )
        self.shape = shape
        self.training_config = config.training
        channels = shape.channels
        self.unet = UNet(channels, 2 * channels, config.widths, config.blocks, config.attention, config.dropout)
        self.tables = ChainTables(self.process, config.prediction)
        self.history = LossHistory(config.timesteps) if config.importance else None

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The process, read as the config's prediction, with a learned variance."""
        if config.schedule == "erasing":
            check_unused_betas(config.schedule, config.beta_start, config.beta_end)
            process = erasing_process(config.timesteps)
        else:
            process = make_process(config.schedule, config.timesteps, config.beta_start, config.beta_end)
        return denoiser_of(process, config.prediction, config, learned=True)

    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The prediction, and the learned variance as samplers read it: v with log sigma^2 between the two betas."""
        out, z = super().answer(x_t, t).chunk(2, 1)
        last = self.process.timesteps - 1
        small, large = self.process.log_variances(min(max(round(t), 0), last))
        if large - small < _ONE_VARIANCE:
            return torch.cat([out, torch.ones_like(z)], 1)
        return torch.cat([out, self._log_ratio(z, large, small) * (2 / (large - small)) - 1], 1)

    def _log_ratio(self, z: Tensor, log_beta: Tensor | float, log_small: Tensor | float) -> Tensor:
        """log(sigma^2 / beta_tilde) of sigma^2 = sigmoid(z / sqrt(T) + logit(beta))."""
        beta = torch.as_tensor(log_beta, dtype=z.dtype, device=z.device)
        logit = beta - torch.log(-torch.expm1(beta))
        return F.logsigmoid(z * self.process.timesteps**-0.5 + logit) - log_small

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """One: the bound."""
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="cosine")
        return (Phase("vlb", ("unet",), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """The bound in bits/dim without L_T, which has nothing to learn, estimated at one timestep an image."""
        x_0 = to_signed(batch.images, self.shape.levels)
        total, tables = self.process.timesteps, self.tables
        t, weights = draw_timesteps(len(x_0), total, context, self.history)
        x_t = tables.diffuse(x_0, t, context.normal(*x_0.shape))
        out, z = self.unet(x_t, t * (TIME_RANGE / total)).chunk(2, 1)
        small = tables.at("log_small", t)
        kernel = Kernel(tables.x_0(x_t, out, t), self._log_ratio(z, small + tables.at("gap", t), small))
        nats = tables.nats(batch.images, x_0, kernel, t, self.shape.levels)
        bits = total * nats / (math.log(2) * self.shape.dims)
        if self.history is not None:
            self.history.note(t, bits)
        return Losses((weights * bits).mean())


def erasing_process(timesteps: int) -> Process:
    """beta_t about 1 / (T - t + 1): each step erases the same share of the signal's variance; 1 / T of it is left.

    Raises:
        UserError: for fewer than 2 timesteps.
    """
    if timesteps < 2:
        raise UserError(f"timesteps: expected at least 2, got {timesteps}")
    return Process(1 / torch.linspace(timesteps, 2, timesteps, dtype=torch.float64))


MODEL = Model("DPM", "Sohl-Dickstein et al. 2015, arXiv:1503.03585", Config, Dpm)
