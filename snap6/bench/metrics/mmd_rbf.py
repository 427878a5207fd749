"""Squared MMD with a Gaussian kernel; in the features of CLIP ViT-L/14 at 336 pixels it is CMMD.

Gretton et al. 2012, JMLR 13 (sec. 8 for the median heuristic). Jayasumana et al. 2024, arXiv:2401.09603 (CMMD): CLIP
embeddings of unit length, k(x, y) = exp(-|x - y|^2 / (2 sigma^2)) with sigma = 10, the squared distance times 1000.
The authors' code averages over all pairs; here, as for the kernel distance, no image is paired with itself, which
leaves the estimate unbiased. They resize bicubically, torch-fidelity and so we bilinearly: the protocol says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.metrics.mmd import BLOCK, Discrepancy, mmd2
from bench.record import Measurement, Scope
from bench.stats import normal_interval

CMMD_EXTRACTOR = "clip-vit-l-14-336px"
"""The tower that CMMD is defined by; in another's features it would be another metric under one name."""
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
MEDIAN_OF = 2000  # real images whose distances make the median: evenly spaced ones where there are more


def gaussian_distance(
    *, sigma: float, real: Array, generated: Array, classes: ArrayLike | None = None, block: int = BLOCK
) -> Discrepancy:
    """Unbiased squared MMD with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), in [-1, 2]; the rest as in `mmd2`.

    Raises:
        ValueError: if sigma is not positive, the shapes do not fit, or a class is too small.
    """
    if not sigma > 0:
        raise ValueError(f"Gaussian kernel: expected sigma > 0, got {sigma}")
    # in units of sigma about the real mean, so that neither an offset nor the scale costs digits
    x, y = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    centre = x.mean(0)
    scaled = {"real": (x - centre) / sigma, "generated": (y - centre) / sigma}
    return mmd2(kernel=_gaussian, **scaled, classes=classes, block=block)


def _gaussian(a: Array, b: Array) -> Array:
    """exp(-|x - y|^2 / 2), all in place."""
    k = a @ b.T
    k -= 0.5 * (a**2).sum(1)[:, None]
    k -= 0.5 * (b**2).sum(1)
    np.minimum(k, 0, out=k)
    return np.exp(k, out=k)


def median_distance(real: Array) -> float:
    """Median distance of two different real images (N, d), to four digits, so that a protocol tells all of it.

    It does not depend on the samples: the kernel is one for all models that face the same images.
    """
    index = np.linspace(0, len(real) - 1, min(len(real), MEDIAN_OF)).round().astype(np.int64)
    x = np.asarray(real, np.float64)[index]
    x = x - x.mean(0)
    unit = float(np.abs(x).max())
    if unit == 0:
        return 0.0
    x /= unit
    norms = (x**2).sum(1)
    squared = (norms[:, None] + norms - 2 * (x @ x.T))[np.triu_indices(len(x), 1)]
    return float(f"{unit * np.sqrt(max(float(np.median(squared)), 0.0)):.4g}")


def unit_length(x: Array) -> Array:
    """Rows (N, d) divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    divided: Array = x / np.where(lengths > 0, lengths, 1)
    return divided


def is_cmmd(subject: Subject) -> bool:
    """Whether the numbers may be called CMMD; features computed elsewhere may not, whatever they are called."""
    return features.is_own(subject, CMMD_EXTRACTOR)


class GaussianKernel:
    """`mmd_rbf[extractor]`, or `cmmd[clip-vit-l-14-336px]`."""

    name = "mmd_rbf"
    description = "Unbiased squared MMD of features with a Gaussian kernel, over all pairs (CMMD in CLIP L/14-336's)"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no distance; None if there is one."""
        reason = features.missing(subject, least=3)
        if reason is None and not is_cmmd(subject) and not self._bandwidth(subject) > 0:
            return "most real images have the same features, so that no bandwidth follows from their distances"
        return reason

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number; below 0 where samples and test images are as near as chance brings them."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        told: Mapping[str, Any]
        if is_cmmd(subject):
            sigma, scale, name = CMMD_SIGMA, CMMD_SCALE, "cmmd"
            real, generated = unit_length(real), unit_length(generated)
            told = {"features": "divided by their length", "sigma": sigma}
        else:
            sigma, scale, name = self._bandwidth(subject), 1.0, self.name
            told = {"sigma": sigma, "sigma_is": "median distance of two real images"}
        distance = partial(gaussian_distance, sigma=sigma, classes=features.fixed_shares(subject))
        value, error = (scale * found for found in distance(real=real, generated=generated))
        low, high = normal_interval(value, error)
        return (
            Measurement(
                metric=features.named(subject, name),
                value=value,
                unit="",
                better="lower",
                n=len(generated),
                scope=self.scope,
                low=low,
                high=high,
                protocol=features.protocol(
                    subject,
                    self.version,
                    kernel="exp(-|x - y|^2 / (2 sigma^2))",
                    **told,
                    scale=scale,
                    estimate="U-statistic over all pairs, the test classes' fixed shares kept",
                ),
                note="jackknife interval, wide near 0",
            ),
        )

    def _bandwidth(self, subject: Subject) -> float:
        """Of the real images alone."""
        return features.cached(subject, "median distance", lambda: median_distance(features.of_test(subject).values))
