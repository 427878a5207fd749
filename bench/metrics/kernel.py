"""Kernel distance: the squared MMD with a cubic kernel, as the full unbiased U-statistic over all pairs.

Binkowski et al. 2018, arXiv:1801.01401 (KID); Gretton et al. 2012, JMLR 13 (eq. 3, the unbiased estimate).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import normal_interval

BLOCK = 1024  # rows of a kernel block; memory is 8 MB a block, whatever N


class KernelDistance(NamedTuple):
    """Squared MMD and its jackknife standard error."""

    value: float
    error: float


def kernel_distance(
    *, real: Array, generated: Array, classes: ArrayLike | None = None, block: int = BLOCK
) -> KernelDistance:
    """Unbiased squared MMD with k(x, y) = (x.y / d + 1)^3; it averages 0 for equal distributions.

    The error is the delete-one jackknife over both sets. Where the distributions are equal the statistic is
    degenerate and the jackknife errs on the large side.

    Args:
        real: (N, d), N at least 3.
        generated: (M, d), M at least 3.
        classes: (N,), where the real images were drawn class by class in fixed shares: two of them are then of one
            class a little less often than two independent ones, and plain averages over pairs read too low. Every
            class needs 3 images.
        block: rows handled at a time; changes memory, not the value.

    Raises:
        ValueError: if the shapes do not fit, or a class is too small.
    """
    x, y = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 3:
        raise ValueError(f"kernel distance: expected (N >= 3, d) and (M >= 3, d), got {x.shape} and {y.shape}")
    groups = _groups(classes, len(x))
    across_x, across_y = _across(x, y, block)
    cross = float(across_x.sum()) / (len(x) * len(y))
    within_x, without_x = _mean_of_pairs(x, groups, block)
    within_y, without_y = _mean_of_pairs(y, _groups(None, len(y)), block)
    variance = _jackknife(without_x - 2 * _mean_without(across_x / len(y), groups), groups)
    variance += _jackknife(without_y - 2 * _mean_without(across_y / len(x), _groups(None, len(y))), None)
    return KernelDistance(within_x + within_y - 2 * cross, math.sqrt(variance))


class _Groups(NamedTuple):
    """Rows drawn in fixed shares, by group; one group where all rows are alike."""

    of: NDArray[np.int64]  # (N,) the group of each row
    sizes: Array  # (groups,)

    def sums(self, values: Array) -> Array:
        """(groups,) the sum of (N,) values in each group."""
        return np.bincount(self.of, values, len(self.sizes)).astype(np.float64)


def _groups(classes: ArrayLike | None, n: int) -> _Groups:
    labels = np.zeros(n) if classes is None else np.asarray(classes).ravel()
    _, of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(labels) != n or sizes.min() < 3:
        raise ValueError(
            f"kernel distance: expected {n} classes, 3 images or more in each, got {len(labels)} labels, "
            f"the smallest class has {sizes.min()}"
        )
    return _Groups(of, sizes.astype(np.float64))


def _mean_of_pairs(x: Array, groups: _Groups, block: int) -> tuple[float, Array]:
    """The mean of k over pairs of independent rows, and (N,) the same without each row, the groups' shares kept.

    A pair within a group of c rows is one of c (c - 1), but stands for a share of (c / N)^2.
    """
    n, sizes, of = len(x), groups.sizes, groups.of
    every = _within(x, block)
    own = every if len(sizes) == 1 else np.zeros(n)
    for group in range(len(sizes)) if len(sizes) > 1 else ():
        rows = np.flatnonzero(of == group)
        own[rows] = _within(x[rows], block)
    inside, outside = groups.sums(own), groups.sums(every - own)
    mean = float((outside + inside * sizes / (sizes - 1)).sum()) / n**2
    c = sizes[of]
    # without row i its group's c - 1 others weigh c / (c - 1) each
    other_pairs = 2 * ((outside[of] - (every - own)) * c / (c - 1) - outside[of])
    own_pairs = c**2 * ((inside[of] - 2 * own) / ((c - 1) * (c - 2)) - inside[of] / (c * (c - 1)))
    return mean, mean + (other_pairs + own_pairs) / n**2


def _mean_without(values: Array, groups: _Groups) -> Array:
    """(N,) the mean of (N,) values without each row, the groups' shares kept."""
    c, sums = groups.sizes[groups.of], groups.sums(values)[groups.of]
    without: Array = (values.sum() + (sums - values) * c / (c - 1) - sums) / len(values)
    return without


def _jackknife(without: Array, groups: _Groups | None) -> float:
    """Variance from the (N,) delete-one values, group by group."""
    if groups is None:
        return float((len(without) - 1) * without.var())
    means = (groups.sums(without) / groups.sizes)[groups.of]
    spread = groups.sums((without - means) ** 2)
    return float(((groups.sizes - 1) / groups.sizes * spread).sum())


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
    version = 2

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no distance; None if there is one."""
        return features.missing(subject, least=3)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number; below 0 where samples and test images are as near as chance brings them."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        value, error = kernel_distance(real=real, generated=generated, classes=features.fixed_shares(subject))
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
                    subject,
                    self.version,
                    kernel="(x.y / d + 1)^3",
                    estimate="U-statistic over all pairs, the test classes' fixed shares kept",
                ),
                note="jackknife interval, wide near 0",
            ),
        )
