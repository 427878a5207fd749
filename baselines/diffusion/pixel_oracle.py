"""The exact denoiser of independent discrete pixels, their entropy, and every term of the bound in expectation.

A pixel takes level l, of value v_l in [-1, 1], with probability p_l. By Bayes' rule P(l | x_t) is proportional to
p_l exp(-(x_t - sqrt(abar_t) v_l)^2 / (2 (1 - abar_t))). The bound is Ho et al. 2020 (arXiv:2006.11239), eq. 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from baselines.data.likelihood import discretised_gaussian
from baselines.diffusion.process import Process

BoundVariance = Literal["beta", "optimal"]
_NODES = 80  # of the Gauss-Hermite rule


@dataclass(frozen=True, eq=False)
class PixelData:
    """probability: float64 (D, L), every row summing to 1, all above 0."""

    probability: Tensor

    @property
    def values(self) -> Tensor:
        """The levels' values in [-1, 1], float64 (L,)."""
        return torch.linspace(-1, 1, self.probability.shape[-1], dtype=torch.float64, device=self.probability.device)

    def log_posterior(self, x_t: Tensor, process: Process, t: float) -> Tensor:
        """log P(level | x_t), (..., D, L), of x_t (..., D); in x_t's dtype."""
        log_p: Tensor = torch.log_softmax(self._scores(x_t, process, t), -1)
        return log_p

    def x_0(self, x_t: Tensor, process: Process, t: float) -> tuple[Tensor, Tensor]:
        """E[x_0 | x_t] and Var[x_0 | x_t], of x_t's shape (..., D); with gradients."""
        posterior, values = torch.softmax(self._scores(x_t, process, t), -1), self.values.to(x_t.dtype)
        mean: Tensor = posterior @ values
        return mean, (posterior * (values - mean[..., None]).square()).sum(-1)

    def _scores(self, x_t: Tensor, process: Process, t: float) -> Tensor:
        """log P(level | x_t) but for a constant of each pixel."""
        values, prior = self.values.to(x_t.dtype), self.probability.log().to(x_t.dtype)
        away = x_t[..., None] - process.signal(t) * values
        return prior - away.square() / (2 * process.sigma(t) ** 2)

    def entropy(self) -> Tensor:
        """Of each pixel in nats, (D,)."""
        nats: Tensor = -torch.special.xlogy(self.probability, self.probability).sum(-1)
        return nats


def reverse_variance(process: Process, t: int, posterior_variance: Tensor, variance: BoundVariance) -> Tensor:
    """Of p(x_{t-1} | x_t): beta_t, or the one that makes the bound tightest, beta_tilde_t + A^2 Var[x_0 | x_t]."""
    move = process.transition(t, t - 1)
    if variance == "beta":
        return torch.full_like(posterior_variance, move.beta)
    return move.beta_tilde + move.mean_x0**2 * posterior_variance


def bound_terms(process: Process, data: PixelData, variance: BoundVariance) -> tuple[Tensor, Tensor, Tensor]:
    """Expected L_T, L_{t-1} (T - 1 of them, t = 1 first) and L_0 in nats of each pixel, by Gauss-Hermite quadrature.

    Shapes (D,), (T - 1, D), (D,). beta: the reverse variance beta_t, and the discretised Gaussian for L_0 (eq. 13).
    optimal: the tightest variance that may depend on x_t, and the exact P(x_0 | x_1) for L_0.
    """
    nodes, weights = (torch.from_numpy(a).to(data.probability) for a in np.polynomial.hermite_e.hermegauss(_NODES))
    weights = weights / weights.sum()
    p, values = data.probability, data.values
    signal, noise = math.exp(process.log_abar(process.timesteps - 1)), process.sigma(process.timesteps - 1) ** 2
    first = 0.5 * (signal * (p @ values.square()) + noise - 1 - math.log(noise))
    middle = []
    levels = torch.arange(len(values), device=p.device)
    for t in range(process.timesteps):
        x_t = process.signal(t) * values + process.sigma(t) * nodes[:, None]  # (nodes, L), of true level l
        spread = x_t[..., None].expand(-1, -1, len(p))  # (nodes, L, D)
        x_0_hat, posterior_variance = data.x_0(spread, process, t)
        if t == 0:
            if variance == "optimal":
                chosen = levels.view(1, -1, 1, 1).expand(len(nodes), -1, len(p), 1)
                nats = -data.log_posterior(spread, process, t).gather(-1, chosen)[..., 0]
            else:
                log_std = torch.tensor(0.5 * math.log(process.variance(0, "beta")), dtype=p.dtype)
                nats = -discretised_gaussian(levels.view(1, -1, 1).expand_as(x_0_hat), x_0_hat, log_std, len(values))
            last = torch.einsum("n,nld,dl->d", weights, nats, p)
            continue
        move = process.transition(t, t - 1)
        sigma2 = reverse_variance(process, t, posterior_variance, variance)
        ratio = move.beta_tilde / sigma2
        error = (values.view(1, -1, 1) - x_0_hat).square()
        nats = 0.5 * (ratio - 1 - ratio.log()) + move.mean_x0**2 * error / (2 * sigma2)
        middle.append(torch.einsum("n,nld,dl->d", weights, nats, p))
    return first, torch.stack(middle), last
