"""DDPM: predicts the noise that was added to an image (Ho et al. 2020, arXiv:2006.11239), trained on L_simple (eq. 14).

DDIM (Song et al. 2020, arXiv:2010.02502) and all other samplers draw from the same weights. The network may predict
x_0, v or the posterior mean instead; the loss is then the mean square error of that. Departure: a batch's timesteps
are stratified over 0 .. T - 1, which leaves the loss unbiased and less noisy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import Batch, Context, ImageShape, Losses, Model, Noise, OptimiserConfig, Phase, Training
from baselines.data.likelihood import to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import GaussianDiffusion, no_network
from baselines.diffusion.prediction import Prediction, check_prediction, target
from baselines.diffusion.process import make_process
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE, UNet

_CALIBRATION = 100  # validation images by which the analytic variance is estimated


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
        if not self.widths or min(self.widths) < 2 or self.blocks < 1:
            raise UserError(f"ddpm: expected widths >= 2 and blocks >= 1, got {self.widths} and {self.blocks}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"ddpm: expected a dropout in [0, 1), got {self.dropout}")
        if self.bound_variance == "analytic" and not self.analytic_variance:
            raise UserError("ddpm: bound_variance 'analytic' needs analytic_variance = true")


class Ddpm(GaussianDiffusion):
    """A U-Net that is shown x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps and t."""

    x0_variance: Tensor  # (T,) mean over pixels of Var[x_0 | x_t] (Bao et al. 2022); 0 where it is not estimated

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        self.shape = shape
        self.training_config = config.training
        channels = shape.channels
        self.unet = UNet(channels, channels, config.widths, config.blocks, config.attention, config.dropout)
        if config.analytic_variance:
            self.register_buffer("x0_variance", torch.zeros(config.timesteps, dtype=torch.float64))
        targets = [target(config.prediction, self.process, t) for t in range(config.timesteps)]
        self._targets = torch.tensor(targets, dtype=torch.float64).T

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The schedule's process, read as the config's prediction."""
        process = make_process(
            config.schedule, config.timesteps, config.beta_start, config.beta_end, config.zero_terminal
        )
        check_prediction(config.prediction, process)
        return Denoiser(no_network, process, config.prediction, x0_variance=() if config.analytic_variance else None)

    @property
    def denoiser(self) -> Denoiser:
        """What the samplers are shown, with the estimated variances."""
        estimated = tuple(self.x0_variance.tolist()) if self.config.analytic_variance else None
        return replace(super().denoiser, x0_variance=estimated)

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

    @torch.no_grad()
    def finish(self, images: Tensor, noise: Noise) -> None:
        """Estimate Var[x_0 | x_t] by the square error of the predicted x_0, one draw an image and timestep."""
        if not self.config.analytic_variance:
            return
        x_0 = to_signed(images[:_CALIBRATION], self.shape.levels)
        draws = noise.normals("analytic", len(x_0), self.shape.chw, self.process.timesteps)
        plain = replace(self.denoiser, x0_variance=None)
        for t in range(self.process.timesteps):
            guess = plain.x_0(self.process.diffuse(x_0, t, next(draws)), t)
            self.x0_variance[t] = (guess - x_0).double().square().mean()

    # Likelihood

    def reverse(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The predicted x_0 and the variance of the config."""
        kind = self.config.bound_variance
        variance = self.process.variance(t, "beta" if kind == "beta" else "beta_tilde")
        if kind == "analytic" and t > 0:
            variance += self.process.transition(t, t - 1).mean_x0 ** 2 * float(self.x0_variance[t])
        return self.denoiser.x_0(x_t, t), torch.tensor(variance, device=x_t.device)


def stratified_timesteps(n: int, total: int, context: Context) -> Tensor:
    """n timesteps of 0 .. total - 1, int64, one in each of n equal parts of the chain."""
    place = (torch.arange(n, device=context.device) + context.uniform(n)) / n
    return (place * total).long().clamp(max=total - 1)


MODEL = Model("DDPM", "Ho et al. 2020, arXiv:2006.11239", Config, Ddpm)
