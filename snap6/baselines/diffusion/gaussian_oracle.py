"""The exact denoiser of Gaussian data, and what every sampler and bound must give with it, in closed form.

Data are independent N(mu, lambda) per dimension (rotate any Gaussian into the eigenbasis of its covariance); a is
abar_t and C = a lambda + 1 - a the variance of x_t. Everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from baselines.diffusion.process import Process, Transition

BoundVariance = Literal["beta", "optimal"]


@dataclass(frozen=True, eq=False)
class GaussianData:
    """mean and variance, float64, of one shape (D,)."""

    mean: Tensor
    variance: Tensor

    def total_variance(self, move: Transition) -> Tensor:
        """C, the variance of x_t, (D,)."""
        return move.abar_t * self.variance + move.noise_t

    def eps(self, x_t: Tensor, move: Transition) -> Tensor:
        """E[eps | x_t] = sqrt(1 - a) (x_t - sqrt(a) mu) / C; x_t: (..., D)."""
        centred = x_t - math.sqrt(move.abar_t) * self.mean
        return math.sqrt(move.noise_t) * centred / self.total_variance(move)

    def posterior_variance(self, move: Transition) -> Tensor:
        """P = Var[x_0 | x_t] = lambda (1 - a) / C, (D,)."""
        return self.variance * move.noise_t / self.total_variance(move)


def sampled_moments(
    data: GaussianData, moves: list[Transition], eta: float, sigma_hat: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) of what DDIM(eta) draws with the exact denoiser over these moves, last timestep first.

    The recursion V <- g^2 V + sigma^2, m <- g m of the error m = E[x] - sqrt(a) mu, from V = 1. With `sigma_hat`
    the gain is that of this eta, and the noise has variance 1 - abar_t / abar_s but for the move into the data.
    """
    error = -math.sqrt(moves[0].abar_t) * data.mean
    variance = torch.ones_like(data.variance)
    for move in moves:
        sigma2 = eta**2 * move.beta_tilde
        direction = math.sqrt(max(move.noise_s - sigma2, 0.0) * move.noise_t)
        gain = (math.sqrt(move.abar_t * move.abar_s) * data.variance + direction) / data.total_variance(move)
        if sigma_hat:
            sigma2 = 0.0 if move.s == -1 else move.beta
        error, variance = gain * error, gain**2 * variance + sigma2
    return data.mean + error, variance


def deterministic_variance(data: GaussianData, moves: list[Transition]) -> Tensor:
    """Variance (D,) of what DDIM(eta=0) draws: (lambda / C_start) prod cos^2 of the steps' angles.

    The angle of a timestep is atan sqrt((1 - a) / (a lambda)); it is 0 for the data.
    """

    def angles(ratios: list[float]) -> Tensor:
        ratio = torch.tensor(ratios, dtype=data.variance.dtype).view(-1, *[1] * data.variance.ndim)
        return torch.atan(torch.sqrt(ratio / data.variance))

    before = angles([move.noise_t / move.abar_t for move in moves])
    after = angles([move.noise_s / move.abar_s for move in moves])
    return data.variance / data.total_variance(moves[0]) * torch.cos(before - after).square().prod(0)


def frechet(data: GaussianData, mean: Tensor, variance: Tensor) -> float:
    """Squared Fréchet distance between the data and N(mean, variance) of independent dimensions."""
    return float(((mean - data.mean) ** 2 + (variance.sqrt() - data.variance.sqrt()) ** 2).sum())


def bound_terms(process: Process, data: GaussianData, variance: BoundVariance) -> tuple[Tensor, Tensor, Tensor]:
    """Expected L_T, L_{t-1} (T - 1 of them, t = 1 first) and continuous L_0 in nats of one dimension each.

    Shapes (D,), (T - 1, D), (D,). `optimal` is the reverse variance that makes the bound tightest.
    """
    whole = process.transition(process.timesteps - 1, -1)
    first = 0.5 * (whole.abar_t * (data.mean**2 + data.variance) + whole.noise_t - 1 - math.log(whole.noise_t))
    middle = []
    for t in range(1, process.timesteps):
        move = process.transition(t, t - 1)
        error = move.mean_x0**2 * data.posterior_variance(move)
        sigma2 = move.beta_tilde + error if variance == "optimal" else torch.full_like(error, move.beta)
        ratio = move.beta_tilde / sigma2
        middle.append(0.5 * (ratio - 1 - ratio.log()) + error / (2 * sigma2))
    move = process.transition(0, -1)
    error = data.posterior_variance(move)
    sigma2 = error if variance == "optimal" else torch.full_like(error, move.beta)
    last = 0.5 * torch.log(2 * math.pi * sigma2) + error / (2 * sigma2)
    return first, torch.stack(middle), last


def entropy(data: GaussianData) -> Tensor:
    """Differential entropy of each dimension in nats, (D,)."""
    return 0.5 * torch.log(2 * math.pi * math.e * data.variance)
