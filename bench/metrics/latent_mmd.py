"""How far the codes of test images are from draws of the prior: squared MMD in the space of codes.

Makhzani et al. 2015 (arXiv:1511.05644) and Tolstikhin et al. 2018 (arXiv:1711.01558, section 2) ask for codes that are
distributed as the prior; the distance is that of Gretton et al. 2012, JMLR 13, unbiased, with a Gaussian kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.contract import HasPrior
from baselines.data.dataset import Dataset
from baselines.data.likelihood import subset
from baselines.noise import Noise, derive_seed
from bench.metrics.base import Array, Subject
from bench.metrics.mmd_rbf import gaussian_distance, median_distance
from bench.record import Measurement, Scope
from bench.stats import normal_interval

IMAGES = 2000  # of the test split at most, the same ones for every model; as many draws of the prior
FLOORS = 10  # pairs of sets of prior draws, which say what chance brings
MAPPED = 1000  # codes, and draws of the prior, that the latent map shows at most
_TOGETHER = 250


class LatentMmd:
    """`latent_mmd` of models that draw by decoding draws of a prior; leaves the map of codes behind."""

    name = "latent_mmd"
    description = "Unbiased squared MMD between codes of test images and draws of the prior, with a Gaussian kernel"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no distance; None if there is one."""
        if subject.dataset is None or len(subject.dataset.test) < 3:
            return "needs at least 3 test images"
        if not isinstance(subject.model, HasPrior):
            return "the model has no codes with a prior"
        return None if self._bandwidth(subject) > 0 else "all draws of the prior are the same"

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number, in [-1, 2]; below 0 where codes and draws are as near as chance brings them."""
        model, data = subject.model, subject.dataset
        assert isinstance(model, HasPrior)
        assert data is not None
        chosen = subset(len(data.test), IMAGES)
        n = len(chosen)
        noise = Noise(derive_seed(subject.seed, self.name), device=subject.device)
        with torch.no_grad():
            codes = drawn_codes(model, data.test.images[chosen], noise, subject.device)
            draws = _array(model.prior(n, noise.fork("prior")))
            sigma = self._bandwidth(subject)
            subject.latent_map |= self._map(model, subject, data, chosen, draws)
            floors = [self._floor(model, n, sigma, noise.fork(k)) for k in range(FLOORS)]
        shares = None if data.test.labels is None or not data.stratified else data.test.labels[chosen].numpy()
        if shares is not None and np.unique(shares, return_counts=True)[1].min() < 3:
            shares = None
        value, error = gaussian_distance(sigma=sigma, real=codes, generated=draws, classes=shares)
        low, high = normal_interval(value, error)
        note = (
            f"sigma {sigma:.4g}; two sets of {n} draws of the prior: {np.mean(floors):.2g} on average, "
            f"{max(floors):.2g} the largest of {FLOORS}; jackknife interval, wide near 0"
        )
        protocol = {
            **subject.protocol,
            "split": "test",
            "n_real": n,
            "n_generated": n,
            "kernel": "exp(-|x - y|^2 / (2 sigma^2))",
            "sigma_is": "median distance of two draws of the prior",
            "estimate": "U-statistic over all pairs"
            + (", the test classes' fixed shares kept" if shares is not None else ""),
            "version": self.version,
        }
        return (Measurement(self.name, value, "", "lower", n, self.scope, low, high, protocol=protocol, note=note),)

    @torch.no_grad()
    def _bandwidth(self, subject: Subject) -> float:
        """Of the prior alone, and of the same draws for all seeds."""
        model, data = subject.model, subject.dataset
        assert isinstance(model, HasPrior)
        assert data is not None
        return median_distance(_array(model.prior(min(len(data.test), IMAGES), Noise(0, device=subject.device))))

    def _floor(self, model: HasPrior, n: int, sigma: float, noise: Noise) -> float:
        first, second = (_array(model.prior(n, noise.fork(which))) for which in ("first", "second"))
        return gaussian_distance(sigma=sigma, real=first, generated=second).value

    def _map(self, model: HasPrior, subject: Subject, data: Dataset, chosen: Tensor, draws: Array) -> dict[str, Any]:
        index = chosen[subset(len(chosen), MAPPED)]
        codes = encoded(model, data.test.images[index], subject.device)
        labels = None if data.test.labels is None else data.test.labels[index].numpy()
        return latent_map(codes, draws[:MAPPED], labels)


def encoded(model: HasPrior, images: Tensor, device: str) -> Array:
    """The codes of uint8 images (N, C, H, W), (N, K)."""
    return np.concatenate([_array(model.encode(part.to(device))) for part in torch.split(images, _TOGETHER)])


def drawn_codes(model: HasPrior, images: Tensor, noise: Noise, device: str) -> Array:
    """A code of each of uint8 images (N, C, H, W) as in training, (N, K)."""
    parts = torch.split(images, _TOGETHER)
    return np.concatenate(
        [_array(model.draw_codes(part.to(device), noise.at(i * _TOGETHER))) for i, part in enumerate(parts)]
    )


def latent_map(codes: Array, draws: Array, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """Where codes (N, K) and draws of the prior (M, K) lie in two dimensions, as plain values for an artifact.

    Codes of more than two dimensions are seen along their first two principal axes, as are the draws.
    """
    latent = codes.shape[1]
    share: float | None = None
    if latent > 2:
        centre = codes.mean(0)
        _, sizes, axes = np.linalg.svd(codes - centre, full_matrices=False)
        share = float((sizes[:2] ** 2).sum() / max(float((sizes**2).sum()), 1e-30))
        codes, draws = (codes - centre) @ axes[:2].T, (draws - centre) @ axes[:2].T
    elif latent == 1:
        codes, draws = (np.concatenate([x, np.zeros_like(x)], 1) for x in (codes, draws))
    return {
        "points": _plain(codes),
        "prior": _plain(draws),
        "labels": None if labels is None else labels.tolist(),
        "latent": latent,
        "share": share,  # of the codes' variance that the two axes hold
    }


def _plain(points: Array) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in point] for point in points]


def _array(codes: Tensor) -> Array:
    found: Array = codes.double().cpu().numpy()
    return found
