"""A mixture of Gaussians over the dequantised image's principal components (Richardson and Weiss 2018, 1805.12462).

What a model knows that has no depth, but many modes. y = mean + basis t + rest: the leading components t follow a
mixture that scikit-learn fits by expectation-maximisation (Dempster et al. 1977), the rest is isotropic noise at
right angles to them (Tipping and Bishop 1999, probabilistic PCA). Where an image has no more than `directions`
pixels there is no rest, and the mixture lives on the pixels themselves.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from baselines.contract import Draw, Fits, GenerativeModel, Given, HasDensity, ImageShape, Model, Noise
from baselines.data.likelihood import dequantise, quantise
from baselines.errors import UserError


@dataclass(frozen=True)
class Config:
    """Size of the mixture; the defaults serve a thousand images and sixty thousand."""

    components: int = 100  # at most
    images_per_component: int = 64  # at least: a covariance of `directions` rows needs as many to have full rank
    covariance: Literal["full", "tied", "diag", "spherical"] = "full"
    ridge: float = 0.5  # variance added in every direction, in squared levels
    directions: int = 64  # principal components that the mixture sees
    most_images: int = 20_000  # a random subset of so many is fitted
    most_iterations: int = 50  # of expectation-maximisation

    def __post_init__(self) -> None:
        for name in ("components", "images_per_component", "directions", "most_images", "most_iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"gmm.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.ridge > 0:
            raise UserError(f"gmm.ridge: expected a positive number, got {self.ridge}")


class Gmm(GenerativeModel, Fits, HasDensity):
    """A mixture of K Gaussians in the P leading of D directions, isotropic noise in the others; all float64."""

    mean: Tensor  # (D,)
    basis: Tensor  # (D, P), orthonormal columns
    rest_std: Tensor  # (), of the D - P other directions
    weights: Tensor  # (K,)
    means: Tensor  # (K, P)
    factors: Tensor  # (K, P, P), lower triangular

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        d, k, p = shape.dims, config.components, min(shape.dims, config.directions)
        eye = torch.eye(p, dtype=torch.float64)
        self.register_buffer("mean", torch.full((d,), 0.5, dtype=torch.float64))
        self.register_buffer("basis", torch.eye(d, p, dtype=torch.float64))
        self.register_buffer("rest_std", torch.ones((), dtype=torch.float64))
        self.register_buffer("weights", torch.full((k,), 1 / k, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(k, p, dtype=torch.float64))
        self.register_buffer("factors", eye.repeat(k, 1, 1))

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Principal components, then the mixture, of images dequantised once; the noise decides all that is random."""
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(noise.seed))
        x = images[chosen[: self.config.most_images].to(images.device)].cpu()
        y = dequantise(x, self.shape.levels, noise.uniform("dequantise", len(x), self.shape.chw).cpu().double())
        y = y.flatten(1)
        p, ridge = self.basis.shape[1], self.config.ridge / self.shape.levels**2
        centred = y - y.mean(0)
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(y))  # ascending
        self.mean.copy_(y.mean(0))
        self.basis.copy_(directions[:, -p:])
        if p < self.shape.dims:
            self.rest_std.copy_((variances[:-p].mean() + ridge).sqrt())
        self._fit_mixture(centred @ directions[:, -p:], ridge, noise.seed)

    def _fit_mixture(self, t: Tensor, ridge: float, seed: int) -> None:
        from sklearn.exceptions import ConvergenceWarning  # a second to import, which only a fit need pay
        from sklearn.mixture import GaussianMixture

        fewer = max(1, min(self.config.components, len(t) // self.config.images_per_component))
        mixture = GaussianMixture(
            fewer,
            covariance_type=self.config.covariance,
            reg_covar=ridge,
            max_iter=self.config.most_iterations,
            random_state=seed % 2**32,
        )
        with warnings.catch_warnings():  # to stop at `most_iterations` is the intention
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(t.numpy())
        covariances = _full(torch.as_tensor(mixture.covariances_), self.config.covariance, fewer, t.shape[1])
        self.weights.zero_()  # components for which there are too few images have no weight
        self.weights[:fewer] = torch.as_tensor(mixture.weights_)
        self.means[:fewer] = torch.as_tensor(mixture.means_)
        self.factors[:fewer] = torch.linalg.cholesky(covariances)

    def log_density(self, y: Tensor) -> Tensor:
        """log of the mixture times the density of the rest, in nats (B,), computed in float64."""
        centred = y.flatten(1).double() - self.mean
        t = centred @ self.basis
        log_joint = [
            torch.log(weight) + _log_normal(torch.linalg.solve_triangular(factor, (t - mean).T, upper=False), factor)
            for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True)
        ]
        rest = (centred**2).sum(1) - (t**2).sum(1)
        others = self.shape.dims - t.shape[1]
        log_rest = -0.5 * rest / self.rest_std**2 - others * (self.rest_std.log() + 0.5 * math.log(2 * math.pi))
        total = torch.logsumexp(torch.stack(log_joint), 0) + (log_rest if others else 0.0)
        return total.to(y.dtype)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """A component, a point of it, noise in the other directions; in the level whose bin holds each pixel."""
        self.check_draw(None, draw)
        u = noise.uniform("component", n, ()).double()
        last = int(self.weights.nonzero().max())
        k = torch.searchsorted(self.weights.cumsum(0), u, right=True).clamp(max=last)
        p = self.basis.shape[1]
        eps = noise.normal("directions", n, (p,)).double()
        t = self.means[k] + (self.factors[k] @ eps[..., None])[..., 0]
        y = self.mean + t @ self.basis.T
        if p < self.shape.dims:
            rest = noise.normal("rest", n, (self.shape.dims,)).double()
            y = y + self.rest_std * (rest - rest @ self.basis @ self.basis.T)
        return quantise(y, self.shape.levels).view(n, *self.shape.chw)


def _log_normal(white: Tensor, factor: Tensor) -> Tensor:
    """log density (B,) of a Gaussian whose whitened deviations are the columns of white (P, B)."""
    log_det: Tensor = factor.diagonal().log().sum()
    return -0.5 * (white**2).sum(0) - log_det - 0.5 * len(white) * math.log(2 * math.pi)


def _full(covariances: Tensor, kind: str, components: int, dims: int) -> Tensor:
    """scikit-learn's covariances of any kind as (components, dims, dims)."""
    if kind == "full":
        return covariances
    if kind == "tied":
        return covariances.expand(components, dims, dims)
    variances = covariances if kind == "diag" else covariances[:, None].expand(components, dims)
    return torch.diag_embed(variances)


MODEL = Model("Gaussian mixture", "Richardson and Weiss 2018, arXiv:1805.12462; scikit-learn", Config, Gmm)
