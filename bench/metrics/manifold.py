"""Precision, recall, density and coverage: which samples fall into the k-nearest-neighbour balls of real images.

Precision, recall: Kynkäänniemi et al. 2019, arXiv:1904.06991 (k = 3). Density, coverage: Naeem et al. 2020,
arXiv:2002.09797 (k = 5). Balls are closed: a point at a ball's very radius is inside.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope

BLOCK = 1024  # rows of a distance block
PRECISION_K, DENSITY_K = 3, 5
_UNSURE = 1e-9  # below this share of |x|^2 + |y|^2 a squared distance has fewer than four digits left
_ROUNDING = 1e-12  # share of |x|^2 + |y|^2 by which a distance from an inner product may be off


class Balls(NamedTuple):
    """Closed balls around points, (N, d), reaching to the k-th nearest other point; radii squared, (N,)."""

    centres: Array
    radii: Array


class Hits(NamedTuple):
    """For one set of points and one of balls, how many of the others each belongs to or holds."""

    of_point: NDArray[np.int64]  # balls that hold point i
    of_ball: NDArray[np.int64]  # points in ball j


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density is at least 0 and 1 on average for equal distributions; coverage is in [0, 1]."""

    density: float
    coverage: float


def precision_recall(*, real: Array, generated: Array, k: int = PRECISION_K, block: int = BLOCK) -> PrecisionRecall:
    """Share of samples in the union of the real images' balls, and the reverse.

    Args:
        real: (N, d), N above k.
        generated: (M, d), M above k.
        k: which neighbour a ball reaches to.
        block: rows handled at a time; changes memory, not the value.

    Raises:
        ValueError: if the shapes do not fit.
    """
    x, y = _prepared(real, generated, k)
    inside = hits(y, balls(x, k, block), block).of_point
    covered = hits(x, balls(y, k, block), block).of_point
    return PrecisionRecall(float((inside > 0).mean()), float((covered > 0).mean()))


def density_coverage(*, real: Array, generated: Array, k: int = DENSITY_K, block: int = BLOCK) -> DensityCoverage:
    """Mean number of real balls around a sample over k, and the share of real balls that hold a sample.

    Arguments and errors as in `precision_recall`; generated may have any number of rows.
    """
    x, y = _prepared(real, generated, k, both=False)
    found = hits(y, balls(x, k, block), block)
    return DensityCoverage(float(found.of_point.mean()) / k, float((found.of_ball > 0).mean()))


def expected_coverage(n: int, m: int, k: int) -> float:
    """E[coverage] where n real and m generated points are of one distribution: 1 - prod (n - i) / (n + m - i)."""
    miss = 1.0
    for i in range(1, k + 1):
        miss *= (n - i) / (n + m - i)
    return 1 - miss


def balls(x: Array, k: int, block: int = BLOCK) -> Balls:
    """The balls of points (N, d) that are centred and scaled, see `_prepared`."""
    radii = np.empty(len(x))
    norms = (x**2).sum(1)
    for first in range(0, len(x), block):
        rows = np.arange(first, min(first + block, len(x)))
        squared = _squared(x[rows], x, norms[rows], norms)
        squared[rows - first, rows] = np.inf  # itself, by index: a duplicate is a neighbour
        neighbour = np.argpartition(squared, k - 1, axis=1)[:, k - 1]
        # a neighbour so near that the inner product's rounding could have picked another is sought again
        near = squared[rows - first, neighbour] <= _UNSURE * (norms[rows] + norms[neighbour])
        for row in np.flatnonzero(near):
            exact = _exact(x[rows[row]], x)
            exact[rows[row]] = np.inf
            neighbour[row] = np.argpartition(exact, k - 1)[k - 1]
        radii[rows] = _exact(x[rows], x[neighbour])
    return Balls(x, radii)


def hits(points: Array, around: Balls, block: int = BLOCK) -> Hits:
    """Which balls hold which points."""
    centres, radii = around
    norms, centre_norms = (points**2).sum(1), (centres**2).sum(1)
    of_point = np.zeros(len(points), np.int64)
    of_ball = np.zeros(len(centres), np.int64)
    for first in range(0, len(points), block):
        rows = points[first : first + block]
        squared = _squared(rows, centres, norms[first : first + block], centre_norms)
        scale = _ROUNDING * (norms[first : first + block, None] + centre_norms)
        squared -= radii
        inside = squared <= 0
        # where rounding could decide, decide by the sum of squared differences, which is exact for duplicates
        close_rows, close_centres = np.nonzero(np.abs(squared) <= scale)
        for part in range(0, len(close_rows), block):
            i, j = close_rows[part : part + block], close_centres[part : part + block]
            inside[i, j] = _exact(rows[i], centres[j]) <= radii[j]
        of_point[first : first + block] = inside.sum(1)
        of_ball += inside.sum(0)
    return Hits(of_point, of_ball)


def _squared(a: Array, b: Array, a_norms: Array, b_norms: Array) -> Array:
    squared = a @ b.T
    squared *= -2
    squared += a_norms[:, None]
    squared += b_norms
    return squared


def _exact(a: Array, b: Array) -> Array:
    distances: Array = ((a - b) ** 2).sum(-1)
    return distances


def _prepared(real: Array, generated: Array, k: int, both: bool = True) -> tuple[Array, Array]:
    """Float64 about the real mean and in units of the largest entry: no offset, no under- or overflow."""
    x, y = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"manifold: expected (N, d) and (M, d), got {x.shape} and {y.shape}")
    if k < 1 or len(x) <= k or len(y) <= (k if both else 0):
        raise ValueError(f"manifold: expected more points than k = {k} >= 1, got {len(x)} real, {len(y)} generated")
    centre = x.mean(0)
    x, y = x - centre, y - centre
    unit = max(float(np.abs(x).max()), float(np.abs(y).max()))
    return (x / unit, y / unit) if unit > 0 else (x, y)


class Manifold:
    """`precision`, `recall`, `density` or `coverage`; the four share their distances."""

    scope: Scope = "draw"
    version = 1

    def __init__(self, name: str, description: str, k: int) -> None:
        self.name = name
        self.description = description
        self.k = k

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken; None if it can."""
        return features.missing(subject, least=self.k + 1)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        pair = density_coverage if self.name in DensityCoverage._fields else precision_recall
        found = features.cached(
            subject, f"{pair.__name__} {self.k}", lambda: pair(real=real, generated=generated, k=self.k)
        )
        value = float(getattr(found, self.name))
        return (
            Measurement(
                metric=features.named(subject, self.name),
                value=value,
                unit="",
                better="higher",
                n=len(real) if self.name in ("recall", "coverage") else len(generated),
                scope=self.scope,
                protocol=features.protocol(subject, self.version, k=self.k),
                note=self._note(len(real), len(generated)),
            ),
        )

    def _note(self, n: int, m: int) -> str:
        if self.name == "coverage":
            return f"equal distributions would reach {expected_coverage(n, m, self.k):.3f} at these numbers of images"
        return "1 on average for equal distributions" if self.name == "density" else ""


PRECISION = Manifold("precision", "Share of samples that lie among the test images, in features", PRECISION_K)
RECALL = Manifold("recall", "Share of test images that lie among the samples, in features", PRECISION_K)
DENSITY = Manifold("density", "How densely samples lie where test images do; 1 is as densely", DENSITY_K)
COVERAGE = Manifold("coverage", "Share of test images with a sample in their neighbourhood", DENSITY_K)
