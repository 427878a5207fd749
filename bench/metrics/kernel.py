"""Kernel distance: the squared MMD with a cubic kernel, as the full unbiased U-statistic over all pairs.

Binkowski et al. 2018, arXiv:1801.01401 (KID); Gretton et al. 2012, JMLR 13 (eq. 3, the unbiased estimate).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import normal_interval

BLOCK = 1024  # rows of a kernel block; memory is 8 MB a block, whatever N


class KernelDistance(NamedTuple):
    """Squared MMD and its jackknife standard error."""

    value: float
    error: float


def kernel_distance(*, real: Array, generated: Array, block: int = BLOCK) -> KernelDistance:
    """Unbiased squared MMD with k(x, y) = (x.y / d + 1)^3; it averages 0 for equal distributions.

    The error is the delete-one jackknife over both sets. Where the distributions are equal the statistic is
    degenerate and the jackknife errs on the large side.

    Args:
        real: (N, d), N at least 3.
        generated: (M, d), M at least 3.
        block: rows handled at a time; changes memory, not the value.

    Raises:
        ValueError: if the shapes do not fit.
    """
    x, y = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 3:
        raise ValueError(f"kernel distance: expected (N >= 3, d) and (M >= 3, d), got {x.shape} and {y.shape}")
    n, m = len(x), len(y)
    within_x, within_y = _within(x, block), _within(y, block)
    across_x, across_y = _across(x, y, block)
    value = within_x.sum() / (n * (n - 1)) + within_y.sum() / (m * (m - 1)) - 2 * across_x.sum() / (n * m)
    # the statistic without row i, in closed form from the row sums
    cross = across_x.sum()
    without_x = (within_x.sum() - 2 * within_x) / ((n - 1) * (n - 2)) - 2 * (cross - across_x) / ((n - 1) * m)
    without_y = (within_y.sum() - 2 * within_y) / ((m - 1) * (m - 2)) - 2 * (cross - across_y) / (n * (m - 1))
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()
    return KernelDistance(float(value), math.sqrt(float(variance)))


def _kernel(a: Array, b: Array) -> Array:
    k = a @ b.T
    k *= 1 / a.shape[1]
    k += 1
    return k * k * k


def _within(x: Array, block: int) -> Array:
    """Sum of k(x_i, x_j) over j != i, (N,); each off-diagonal block is computed once."""
    sums = np.zeros(len(x))
    for i in range(0, len(x), block):
        for j in range(i, len(x), block):
            k = _kernel(x[i : i + block], x[j : j + block])
            if i == j:
                np.fill_diagonal(k, 0)
            else:
                sums[j : j + block] += k.sum(0)
            sums[i : i + block] += k.sum(1)
    return sums


def _across(x: Array, y: Array, block: int) -> tuple[Array, Array]:
    """Sums of k(x_i, y_j) over j, (N,), and over i, (M,)."""
    over_y, over_x = np.zeros(len(x)), np.zeros(len(y))
    for i in range(0, len(x), block):
        for j in range(0, len(y), block):
            k = _kernel(x[i : i + block], y[j : j + block])
            over_y[i : i + block] += k.sum(1)
            over_x[j : j + block] += k.sum(0)
    return over_y, over_x


class Kernel:
    """`kid[extractor]`, unbiased at any number of images."""

    name = "kid"
    description = "Kernel distance: unbiased squared MMD of features with a cubic kernel, over all pairs"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no distance; None if there is one."""
        return features.missing(subject, least=3)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number; below 0 where samples and test images are as near as chance brings them."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        value, error = kernel_distance(real=real, generated=generated)
        low, high = normal_interval(value, error)
        return (
            Measurement(
                metric=features.named(subject, self.name),
                value=value,
                unit="",
                better="lower",
                n=len(generated),
                scope=self.scope,
                low=low,
                high=high,
                protocol=features.protocol(
                    subject, self.version, kernel="(x.y / d + 1)^3", estimate="U-statistic over all pairs"
                ),
                note="jackknife interval, wide near 0",
            ),
        )
