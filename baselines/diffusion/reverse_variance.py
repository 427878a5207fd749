"""The variance of a model's reverse steps: beta, beta_tilde, learned or analytic, in bound and samplers alike.

beta, beta_tilde: Ho et al. 2020 (arXiv:2006.11239), sec. 3.2; learned: Nichol and Dhariwal 2021 (arXiv:2102.09672),
eq. 15; analytic: Bao et al. 2022 (arXiv:2201.06503), whose Var[x_0 | x_t] is estimated after training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from baselines.contract import Noise
from baselines.data.likelihood import to_signed
from baselines.diffusion.chain_model import no_network
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import GaussianDiffusion
from baselines.diffusion.prediction import Prediction, check_prediction
from baselines.diffusion.process import Process
from baselines.diffusion.samplers import interpolated_variance
from baselines.errors import UserError

BoundVariance = Literal["beta", "beta_tilde", "learned", "analytic"]

_CALIBRATION = 100  # validation images by which the analytic variance is estimated


def check_variance(name: str, config: Any) -> None:
    """Refuse a `bound_variance` that would have no numbers, and a network of no size.

    Raises:
        UserError: naming the model and the key.
    """
    if not config.widths or min(config.widths) < 2 or config.blocks < 1:
        raise UserError(f"{name}: expected widths >= 2 and blocks >= 1, got {config.widths} and {config.blocks}")
    if not 0 <= config.dropout < 1:
        raise UserError(f"{name}: expected a dropout in [0, 1), got {config.dropout}")
    if config.bound_variance == "analytic" and not config.analytic_variance:
        raise UserError(f"{name}: bound_variance 'analytic' needs analytic_variance = true")


def denoiser_of(process: Process, prediction: Prediction, config: Any, learned: bool = False) -> Denoiser:
    """What a draw is checked by, before there are weights.

    Raises:
        UserError: for a prediction that this process cannot be sampled with.
    """
    check_prediction(prediction, process)
    estimated = () if config.analytic_variance else None
    return Denoiser(no_network, process, prediction, learned_variance=learned, x0_variance=estimated)


class ReverseVariance(GaussianDiffusion):
    """Its config has `timesteps`, `bound_variance` and `analytic_variance`: estimate Var[x_0 | x_t] after training."""

    x0_variance: Tensor  # (T,) mean over pixels of Var[x_0 | x_t]; 0 where it is not estimated

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.analytic_variance:
            self.register_buffer("x0_variance", torch.zeros(config.timesteps, dtype=torch.float64))

    @property
    def denoiser(self) -> Denoiser:
        """What the samplers are shown, with the estimated variances."""
        estimated = tuple(self.x0_variance.tolist()) if self.config.analytic_variance else None
        return replace(super().denoiser, x0_variance=estimated)

    @torch.no_grad()
    def finish(self, images: Tensor, noise: Noise) -> None:
        """Estimate Var[x_0 | x_t] by the square error of the predicted x_0, one draw an image and timestep.

        x_0 is clamped, as in the bound and by the samplers; in [-1, 1] no variance is above 1. Near pure noise a small
        error in eps would else count as a spread of the images.
        """
        if not self.config.analytic_variance:
            return
        x_0 = to_signed(images[:_CALIBRATION], self.shape.levels)
        draws = noise.normals("analytic", len(x_0), self.shape.chw, self.process.timesteps)
        plain = replace(self.denoiser, x0_variance=None)
        for t in range(self.process.timesteps):
            guess = plain.x_0(self.process.diffuse(x_0, t, next(draws)), t).clamp_(-1, 1)
            self.x0_variance[t] = (guess - x_0).double().square().mean().clamp(max=1)

    def reverse(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The predicted x_0 and the variance of the config."""
        kind, process = self.config.bound_variance, self.process
        if kind == "learned":
            out, v = self.answer(x_t, t).chunk(2, 1)
            read = self.denoiser.reading(t)
            x_0 = torch.add(x_t * read.x0_from_x, out, alpha=read.x0_from_out)
            return x_0, interpolated_variance(v, *process.log_variances(t))
        variance = process.variance(t, "beta" if kind == "beta" else "beta_tilde")
        if kind == "analytic" and t > 0:
            variance += process.transition(t, t - 1).mean_x0 ** 2 * float(self.x0_variance[t])
        return self.denoiser.x_0(x_t, t), torch.tensor(variance, device=x_t.device)
