"""Improved DDPM: a DDPM that learns the variance of its reverse steps (Nichol and Dhariwal 2021, arXiv:2102.09672).

The network answers eps and, for each pixel, where log sigma^2 lies between log beta_tilde and log beta (eq. 15). It
is trained on L_hybrid = L_simple + 0.001 L_vlb (eq. 16), in which L_vlb teaches the variance alone, or on L_vlb.
Departures: the first step has at least the noise that the paper's rule gives for the data's number of levels (the
cosine schedule's own has, for 256 levels; for 17 it would spend a bit a pixel on noise that rounding removes);
timesteps are stratified within a batch, and the x_0 that the hybrid's L_vlb sees is clamped to the pixels' range, as
it is where the bound is measured and by the samplers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from baselines.contract import Batch, Context, ImageShape, Losses, Model, OptimiserConfig, Phase, Training
from baselines.data.likelihood import to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.prediction import Prediction
from baselines.diffusion.process import first_beta, make_process, with_first_beta
from baselines.diffusion.reverse_variance import BoundVariance, ReverseVariance, check_variance, denoiser_of
from baselines.diffusion.timesteps import LossHistory, draw_timesteps
from baselines.diffusion.variational import ChainTables, Kernel
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE, UNet


@dataclass(frozen=True)
class Config:
    """Process, network and optimiser; the defaults are tuned for 8x8 digits."""

    timesteps: int = 1000  # T
    schedule: Literal["linear", "quadratic", "sigmoid", "cosine"] = "cosine"
    beta_start: float = 1e-4  # of a chain of 1000 steps, where the schedule has one; pixels in [-1, 1]
    beta_end: float = 0.02
    beta_first: float | None = None  # variance of the first step; None: at least that of a quarter of a level
    zero_terminal: bool = False  # the chain ends in pure noise (Lin et al. 2023); with x0 or v
    prediction: Prediction = "eps"
    objective: Literal["hybrid", "vlb"] = "hybrid"
    vlb_weight: float = 0.001  # lambda of L_hybrid; L_vlb in bits/dim, summed over the chain
    importance: bool = False  # timesteps by their losses (eq. 18): for the objective "vlb"
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
        check_variance("improved_ddpm", self)
        if self.beta_first is not None and not 0 < self.beta_first < 1:
            raise UserError(f"improved_ddpm: expected 0 < beta_first < 1, got {self.beta_first}")
        if self.vlb_weight <= 0:
            raise UserError(f"improved_ddpm: expected vlb_weight > 0, got {self.vlb_weight}; 'ddpm' has no such term")


class ImprovedDdpm(ReverseVariance):
    """A U-Net that is shown x_t and t, and answers in 2 C channels: the prediction, and v in about [-1, 1]."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        process = self.process
        first = config.beta_first or max(first_beta(shape.levels), float(process.betas[0]))
        self._chain = replace(self._chain, process=with_first_beta(process, first))
        self.shape = shape
        self.training_config = config.training
        channels = shape.channels
        self.unet = UNet(channels, 2 * channels, config.widths, config.blocks, config.attention, config.dropout)
        self.tables = ChainTables(self.process, config.prediction)
        self.history = LossHistory(config.timesteps) if config.importance else None

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The schedule's process, read as the config's prediction, with a learned variance."""
        process = make_process(
            config.schedule, config.timesteps, config.beta_start, config.beta_end, config.zero_terminal
        )
        return denoiser_of(process, config.prediction, config, learned=True)

    def phases(self) -> tuple[Phase, ...]:
        """One: L_hybrid or L_vlb."""
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="cosine")
        return (Phase(self.config.objective, ("unet",), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """The objective at one timestep an image; L_vlb in bits/dim, an estimate of the sum over all timesteps."""
        x_0 = to_signed(batch.images, self.shape.levels)
        total = self.process.timesteps
        t, weights = draw_timesteps(len(x_0), total, context, self.history)
        eps = context.normal(*x_0.shape)
        x_t = self.tables.diffuse(x_0, t, eps)
        out, v = self.unet(x_t, t * (TIME_RANGE / total)).chunk(2, 1)
        simple = (out - self.tables.target(x_0, eps, t)).square().flatten(1).mean(1)
        hybrid = self.config.objective == "hybrid"
        guess = self.tables.x_0(x_t, out.detach() if hybrid else out, t)
        kernel = Kernel(guess.clamp(-1, 1) if hybrid else guess, self.tables.log_ratio(v, t))
        bits = self.tables.nats(batch.images, x_0, kernel, t, self.shape.levels) / (math.log(2) * self.shape.dims)
        vlb = total * bits
        losses = simple + self.config.vlb_weight * vlb if hybrid else vlb
        if self.history is not None:
            self.history.note(context.share.every(t), context.share.every(losses))
        parts = {"simple": (weights * simple).mean(), "vlb": (weights * vlb).mean()}
        return Losses((weights * losses).mean(), parts)


MODEL = Model("Improved DDPM", "Nichol & Dhariwal 2021, arXiv:2102.09672", Config, ImprovedDdpm)
