"""DDPM: predicts the noise that was added to an image (Ho et al. 2020, arXiv:2006.11239), trained on L_simple (eq. 14).

DDIM (Song et al. 2020, arXiv:2010.02502) and all other samplers draw from the same weights. The network may predict
x_0, v or the posterior mean instead; the loss is then the mean square error of that. Departure: a batch's timesteps
are stratified over 0 .. T - 1, which leaves the loss unbiased and less noisy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import Batch, Context, ImageShape, Losses, Model, OptimiserConfig, Phase, Training
from baselines.data.likelihood import to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.prediction import Prediction, target
from baselines.diffusion.process import make_process
from baselines.diffusion.reverse_variance import ReverseVariance, check_variance, denoiser_of
from baselines.diffusion.timesteps import stratified_timesteps
from baselines.nets.unet import TIME_RANGE, UNet


@dataclass(frozen=True)
class Config:
    """Process, network and optimiser; the defaults are tuned for 8x8 digits."""

    timesteps: int = 1000  # T
    schedule: Literal["linear", "quadratic", "sigmoid", "cosine"] = "cosine"
    beta_start: float = 1e-4  # of a chain of 1000 steps, where the schedule has one; pixels in [-1, 1]
    beta_end: float = 0.02
    zero_terminal: bool = False  # the chain ends in pure noise (Lin et al. 2023); with x0 or v
    prediction: Prediction = "eps"
    widths: tuple[int, ...] = (24, 48)  # channels of each resolution of the U-Net
    blocks: int = 1  # residual blocks at each, on the way down and on the way up
    attention: bool = False
    dropout: float = 0.0
    bound_variance: Literal["beta", "beta_tilde", "analytic"] = "beta"  # of the reverse steps in the variational bound
    analytic_variance: bool = False  # estimate it after training: variance "analytic" of samplers and bound
    lr: float = 4e-3
    warmup: float = 0.02  # fraction of the budget
    training: Training = Training(batch_size=32, ema_decay=0.999)

    def __post_init__(self) -> None:
        check_variance("ddpm", self)


class Ddpm(ReverseVariance):
    """A U-Net that is shown x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps and t."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        self.shape = shape
        self.training_config = config.training
        channels = shape.channels
        self.unet = UNet(channels, channels, config.widths, config.blocks, config.attention, config.dropout)
        targets = [target(config.prediction, self.process, t) for t in range(config.timesteps)]
        self._targets = torch.tensor(targets, dtype=torch.float64).T

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The schedule's process, read as the config's prediction."""
        process = make_process(
            config.schedule, config.timesteps, config.beta_start, config.beta_end, config.zero_terminal
        )
        return denoiser_of(process, config.prediction, config)

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """One: L_simple."""
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="cosine")
        return (Phase("simple", ("unet",), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """Mean square error of the prediction at random timesteps, one in each of B equal parts of the chain."""
        x_0 = to_signed(batch.images, self.shape.levels)
        t = stratified_timesteps(len(x_0), self.process.timesteps, context)
        eps = context.normal(*x_0.shape)

        def weigh(of_x0: Tensor, of_eps: Tensor) -> Tensor:
            weights = (table.float().to(x_0.device)[t].view(-1, 1, 1, 1) for table in (of_x0, of_eps))
            return next(weights) * x_0 + next(weights) * eps

        x_t = weigh(self.process.abar.sqrt(), self.process.noise.sqrt())
        wanted = eps if self.config.prediction == "eps" else weigh(*self._targets)
        return Losses(F.mse_loss(self.unet(x_t, t * (TIME_RANGE / self.process.timesteps)), wanted))


MODEL = Model("DDPM", "Ho et al. 2020, arXiv:2006.11239", Config, Ddpm)
