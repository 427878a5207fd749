"""Intervals and comparisons of numbers that records hold; imports no torch.

Reflected ("basic") bootstrap: Davison & Hinkley 1997, Bootstrap Methods and their Application, sec. 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
"""Nominal coverage of every interval that the suite prints."""

Scale = Literal["plain", "log", "share"]
"""Of which numbers an interval over seeds is taken."""


class Estimate(NamedTuple):
    """A value and its interval; the bounds are None where the data do not support one."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0


def normal_interval(value: float, deviation: float) -> tuple[float, float]:
    """value -+ z * deviation, where `deviation` is the standard error of `value`."""
    z = float(ndtri(0.5 + CONFIDENCE / 2))
    return value - z * deviation, value + z * deviation


def mean_over_images(values: ArrayLike) -> Estimate:
    """The mean of many independent values with its normal interval, mean -+ 1.96 s / sqrt(n).

    Raises:
        ValueError: if there are no values, or one is not finite.
    """
    x = _finite(values)
    if len(x) < 2:
        return Estimate(float(x.mean()), n=len(x))
    return Estimate(float(x.mean()), *normal_interval(float(x.mean()), _standard_error(x)), n=len(x))


def error_of_mean(standard_errors: ArrayLike) -> float:
    """Standard error of a mean of independent values, each with a standard error of its own.

    Raises:
        ValueError: if there are no values, or one is not finite.
    """
    x = _finite(standard_errors)
    return float(np.sqrt((x**2).sum())) / len(x)


def mean_over_seeds(values: ArrayLike, scale: Scale = "plain") -> Estimate:
    """The mean of a few independent runs with Student's t interval; one run has no interval.

    Args:
        values: one number a run.
        scale: what the interval is taken on. "plain": the numbers. "log": their logarithms, so that no bound of a
            positive quantity falls below 0; it lies about the geometric mean. "share": the numbers, with bounds
            kept within [0, 1].

    Raises:
        ValueError: if there are no values, one is not finite, or of logarithms one is not above 0.
    """
    x = _finite(values)
    if len(x) < 2:
        return Estimate(float(x.mean()), n=len(x))
    if scale == "log":
        if (x <= 0).any():
            raise ValueError(f"interval of logarithms: expected values above 0, got {float(x.min())}")
        low, high = (math.exp(bound) for bound in _t_interval(np.log(x)))
        return Estimate(float(x.mean()), low, high, n=len(x))
    low, high = _t_interval(x)
    if scale == "share":
        low, high = max(low, 0.0), min(high, 1.0)
    return Estimate(float(x.mean()), low, high, n=len(x))


def _t_interval(x: NDArray[np.float64]) -> tuple[float, float]:
    half = float(stdtrit(len(x) - 1, 0.5 + CONFIDENCE / 2)) * _standard_error(x)
    return float(x.mean()) - half, float(x.mean()) + half


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """The mean of a_i - b_i, paired by seed, with Student's t interval.

    Raises:
        ValueError: if the two do not have the same, positive length.
    """
    if len(a) != len(b):
        raise ValueError(f"paired difference: expected sequences of one length, got {len(a)} and {len(b)}")
    return mean_over_seeds(np.asarray(a, np.float64) - np.asarray(b, np.float64))


def reflected_interval(estimate: float, replicates: ArrayLike, floor: float | None = None) -> tuple[float, float]:
    """The reflected bootstrap interval: the quantiles of 2 * estimate - replicate.

    An estimator that is biased upwards by b is biased by about b again under resampling, so that percentiles
    of the replicates lie 2b too high; reflection takes the bias out, and the interval may lie below `estimate`.

    Args:
        estimate: the statistic of the data.
        replicates: (B,), the statistic of B resamples.
        floor: the least value that the quantity can have; the bounds are clipped to it.
    """
    tail = (1 - CONFIDENCE) / 2
    low_quantile, high_quantile = np.quantile(_finite(replicates), [tail, 1 - tail])
    low, high = 2 * estimate - float(high_quantile), 2 * estimate - float(low_quantile)
    return (low, high) if floor is None else (max(low, floor), max(high, floor))


def resample_counts(n: int, replicates: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of n items is drawn in each of B resamples of n with replacement, (B, n)."""
    counts = np.zeros((replicates, n), np.int64)
    for row in counts:
        row += np.bincount(rng.integers(n, size=n), minlength=n)
    return counts


class Strata(NamedTuple):
    """Items in groups whose shares are fixed by design, such as a test split that is stratified by class."""

    order: NDArray[np.int64]  # (n,) items, group by group
    start: NDArray[np.int64]  # (n,) where in `order` the item's group begins
    size: NDArray[np.int64]  # (n,) how many items its group has

    @classmethod
    def of(cls, labels: ArrayLike) -> Strata:
        """The groups of n items by label; equal labels everywhere make one group, as in plain resampling."""
        names = np.asarray(labels).ravel()
        _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
        starts = np.cumsum(sizes) - sizes
        order = np.argsort(group, kind="stable")
        return cls(order, starts[group[order]], sizes[group[order]])

    def resample(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """n items with replacement, each from the group that the original one is of."""
        drawn: NDArray[np.int64] = self.order[self.start + rng.integers(self.size)]
        return drawn

    def subset(self, shrink: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """A random 1/shrink of each group, without replacement, rounded to the nearest number."""
        shuffled = self.order[np.lexsort((rng.random(len(self.order)), self.start))]
        kept: NDArray[np.int64] = shuffled[np.arange(len(self.order)) - self.start < np.rint(self.size / shrink)]
        return kept


def line_at_zero(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Intercept of the least-squares line through (x, y), and the intercept's standard error.

    Raises:
        ValueError: with fewer than three points, or where all x are equal.
    """
    x, y = _finite(x), _finite(y)
    spread = float(((x - x.mean()) ** 2).sum())
    if len(x) < 3 or len(x) != len(y) or spread == 0:
        raise ValueError(f"line fit: expected three or more points at different x, got {len(x)} x and {len(y)} y")
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean()) - slope * float(x.mean())
    residual = float(((y - intercept - slope * x) ** 2).sum()) / (len(x) - 2)
    return intercept, math.sqrt(residual * (1 / len(x) + float(x.mean()) ** 2 / spread))


def _standard_error(x: NDArray[np.float64]) -> float:
    return float(x.std(ddof=1)) / math.sqrt(len(x))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, np.float64).ravel()
    if len(x) == 0:
        raise ValueError("expected at least one value, got none")
    if not np.isfinite(x).all():
        raise ValueError(f"expected finite values, got {int((~np.isfinite(x)).sum())} of {len(x)} that are not")
    return x
