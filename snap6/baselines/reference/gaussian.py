"""One Gaussian with a full covariance over the dequantised image, by maximum likelihood (Gauss 1809).

What a model knows that sees means and pairwise correlations alone. The noise of dequantisation is not drawn: its
moments are known, so y = (x + u) / levels has the mean (E[x] + 1/2) / levels and the covariance
(Cov[x] + I / 12) / levels^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.contract import Draw, Fits, GenerativeModel, Given, HasDensity, ImageShape, Model, Noise
from baselines.data.likelihood import quantise
from baselines.errors import UserError


@dataclass(frozen=True)
class Config:
    """How the covariance is kept regular."""

    ridge: float = 0.01  # variance added to every pixel, in squared levels; dequantisation brings 1/12 of its own

    def __post_init__(self) -> None:
        if not self.ridge >= 0:
            raise UserError(f"gaussian.ridge: expected a number of at least 0, got {self.ridge}")


class Gaussian(GenerativeModel, Fits, HasDensity):
    """y ~ N(mean, factor factor^T)."""

    mean: Tensor  # (D,) float64
    factor: Tensor  # (D, D) float64, lower triangular

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.register_buffer("mean", torch.full((shape.dims,), 0.5, dtype=torch.float64))
        self.register_buffer("factor", torch.eye(shape.dims, dtype=torch.float64))

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Mean and covariance of the dequantised images; nothing here is random."""
        x = images.flatten(1).double()
        mean = x.mean(0)
        centred = x - mean
        covariance = centred.T @ centred / len(x)
        covariance.diagonal().add_(1 / 12 + self.config.ridge)
        self.mean.copy_((mean + 0.5) / self.shape.levels)
        self.factor.copy_(torch.linalg.cholesky(covariance) / self.shape.levels)

    def log_density(self, y: Tensor) -> Tensor:
        """log N(y; mean, factor factor^T) in nats (B,), computed in float64."""
        return gaussian_log_density(y.flatten(1).double() - self.mean, self.factor).to(y.dtype)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """mean + factor eps, in the level whose bin holds each pixel."""
        self.check_draw(None, draw)
        eps = noise.normal("pixels", n, (self.shape.dims,)).double()
        return quantise(self.mean + eps @ self.factor.T, self.shape.levels).view(n, *self.shape.chw)


def gaussian_log_density(centred: Tensor, factor: Tensor) -> Tensor:
    """log N(centred; 0, factor factor^T) in nats (B,), of centred (B, D) and lower triangular factor (D, D)."""
    white: Tensor = torch.linalg.solve_triangular(factor, centred.T, upper=False)
    log_det: Tensor = factor.diagonal().log().sum()
    return -0.5 * (white**2).sum(0) - log_det - 0.5 * len(factor) * math.log(2 * math.pi)


MODEL = Model("Gaussian", "maximum likelihood, full covariance (Gauss 1809)", Config, Gaussian)
