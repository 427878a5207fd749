"""The Fréchet distance between Gaussians fitted to two sets of features, exact in float64.

Heusel et al. 2017, arXiv:1706.08500 (FID); Dowson & Landau 1982 for the distance of two Gaussians:
|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). The estimate from N images is biased upwards by about c / N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import blas, lapack

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import Strata, reflected_interval

INTERVAL_RATIO = 2.0
"""An interval is given from N/d of this value on; below, a resample's covariance is nearly or fully singular."""
BIAS_LIMIT = 2.3
"""Reflection is trusted while (bootstrap's bias) / (N/d) is at most this many deviations of the replicates.

Resampling overstates the bias by a share of about 0.45 d/N (Gaussian simulations, d = 16..128, N/d = 2..16): past
this limit the interval lies more than one deviation too low, and covers the truth less than 90 % of the time.
"""
_WIDE = 512  # features from which on fewer resamples are drawn
_ROWS = 512  # centred at a time
_SINGULAR = 1e-13  # eigenvalues of S1 S2 below this share of the largest are lost to rounding


def frechet_distance(*, real: Array, generated: Array) -> float:
    """Squared Fréchet (2-Wasserstein) distance of the Gaussians fitted to two sets of features.

    Args:
        real: (N, d), N at least 2.
        generated: (M, d), M at least 2.

    Raises:
        ValueError: if the shapes do not fit.
    """
    first, second = _checked(real, "real"), _checked(generated, "generated")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"Fréchet distance: expected equal d, got {first.shape[1]} and {second.shape[1]}")
    mean_first, mean_second = first.mean(0), second.mean(0)
    gap = mean_first - mean_second
    if min(len(first), len(second)) > first.shape[1]:
        first_cov, second_cov = _covariance(first, mean_first), _covariance(second, mean_second)
        trace = float(np.trace(first_cov) + np.trace(second_cov))
        cross = _covariance_cross_trace(first_cov, second_cov, overwrite=True)
        if cross is not None:
            return max(float(gap @ gap) + trace - 2 * cross, 0.0)
    # a singular covariance, or fewer images than features: no square is taken, so nothing is lost to rounding
    first = (first - mean_first) / np.sqrt(len(first) - 1)
    second = (second - mean_second) / np.sqrt(len(second) - 1)
    trace = float((first**2).sum() + (second**2).sum())
    cross = float(np.linalg.svd(_reduced(first) @ _reduced(second).T, compute_uv=False).sum())  # the nuclear norm
    return max(float(gap @ gap) + trace - 2 * cross, 0.0)


def _covariance(x: Array, mean: Array) -> Array:
    """Of features (N, d), the upper triangle of (d, d) alone; a block of rows at a time is centred in the cache."""
    covariance = np.zeros((x.shape[1], x.shape[1]), order="F")
    for start in range(0, len(x), _ROWS):
        centred = x[start : start + _ROWS] - mean
        covariance = blas.dsyrk(1 / (len(x) - 1), centred.T, beta=1.0, c=covariance, lower=1, overwrite_c=1)
    upper: Array = covariance.T
    return upper


def _reduced(x: Array) -> Array:
    """At most d rows with the same X^T X."""
    if len(x) <= x.shape[1]:
        return x
    return np.asarray(np.linalg.qr(x, mode="r"), np.float64)


def _covariance_cross_trace(first: Array, second: Array, overwrite: bool = False) -> float | None:
    """tr (S1 S2)^(1/2) from the eigenvalues of L^T S2 L, S1 = L L^T; None where a covariance is singular.

    Only the upper triangles are read. LAPACK takes the transposes, which are the same matrices in its own order, and
    so copies nothing.
    """
    lower, failed = lapack.dpotrf(first.T, lower=1, overwrite_a=overwrite)
    if failed:
        return None
    # L^T S2 L as a symmetric product, at a quarter of the work of two full ones
    product, _ = lapack.dsygst(second.T, lower, itype=2, lower=1, overwrite_a=overwrite)
    eigenvalues = linalg.eigvalsh(product, check_finite=False, overwrite_a=True)
    if eigenvalues[0] <= _SINGULAR * len(first) * eigenvalues[-1]:
        return None
    return float(np.sqrt(eigenvalues).sum())


def frechet_distance_of_moments(
    *, mean_real: Array, cov_real: Array, mean_generated: Array, cov_generated: Array
) -> float:
    """The same distance from means (d,) and covariances (d, d); singular covariances lose half the digits."""
    cross = _covariance_cross_trace(cov_real, cov_generated)
    if cross is None:
        values, vectors = linalg.eigh(cov_real, check_finite=False)
        root = vectors * np.sqrt(values.clip(0))
        inner = linalg.eigvalsh(root.T @ cov_generated @ root, check_finite=False, overwrite_a=True)
        cross = float(np.sqrt(inner.clip(0)).sum())
    gap = mean_real - mean_generated
    return max(float(gap @ gap) + float(np.trace(cov_real) + np.trace(cov_generated)) - 2 * cross, 0.0)


def bootstrap_distances(
    *, real: Array, generated: Array, replicates: int, rng: np.random.Generator, strata: Strata | None = None
) -> Array:
    """The distance between resamples of both sets, (replicates,).

    strata: groups of the real images whose shares no resample changes. Where a split is stratified by class, plain
    resampling adds chance to the shares that the split does not have, and so overstates its bias.
    """
    # centred once, so that a resample's second moment and mean hardly cancel
    first, second = real - real.mean(0), generated - generated.mean(0)
    shift = real.mean(0) - generated.mean(0)
    strata, plain = strata or Strata.of(np.zeros(len(first))), Strata.of(np.zeros(len(second)))
    found = np.empty(replicates)
    for i in range(replicates):
        mean_first, cov_first = _resampled_moments(first, strata.resample(rng))
        mean_second, cov_second = _resampled_moments(second, plain.resample(rng))
        found[i] = frechet_distance_of_moments(
            mean_real=mean_first + shift,
            cov_real=cov_first,
            mean_generated=mean_second,
            cov_generated=cov_second,
        )
    return found


def _resampled_moments(centred: Array, index: NDArray[np.int64]) -> tuple[Array, Array]:
    n = len(centred)
    counts = np.bincount(index, minlength=n)
    drawn = np.flatnonzero(counts)  # about 63 % of the rows
    rows = centred[drawn]
    mean = counts[drawn] @ rows / n
    rows *= np.sqrt(counts[drawn])[:, None]
    return mean, (rows.T @ rows - n * np.outer(mean, mean)) / (n - 1)


def _checked(x: Array, name: str) -> Array:
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"Fréchet distance: expected {name} features (N >= 2, d), got shape {x.shape}")
    return x


class Frechet:
    """`fd[extractor]`, or `fid` in Inception's features, with a reflected bootstrap interval."""

    name = "fd"
    description = "Fréchet distance of Gaussians fitted to features of samples and test images (FID in Inception's)"
    scope: Scope = "draw"
    version = 1

    def __init__(self, replicates: int = 200) -> None:
        self.replicates = replicates

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no distance; None if there is one."""
        return features.missing(subject, least=2)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number, in squared units of the features."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        value = frechet_distance(real=real, generated=generated)
        low, high, note = self._interval(subject, value, features.ratio(real, generated))
        return (
            Measurement(
                metric="fid" if features.is_inception(subject) else features.named(subject, self.name),
                value=value,
                unit="",
                better="lower",
                n=len(generated),
                scope=self.scope,
                low=low,
                high=high,
                protocol=features.protocol(subject, self.version),
                note=f"{features.ratio_note(real, generated)}; {note}",
            ),
        )

    def _interval(self, subject: Subject, value: float, ratio: float) -> tuple[float | None, float | None, str]:
        if ratio < INTERVAL_RATIO:
            return None, None, f"no interval: it takes N/d of at least {INTERVAL_RATIO:g} in both sets"
        resampled = bootstrap_of(subject, self.replicates)
        bias = float(resampled.mean()) - value
        if bias > BIAS_LIMIT * ratio * float(resampled.std(ddof=1)):
            return (
                None,
                None,
                f"no interval: the bias, about {bias:.2g}, is too large to reflect; fd_inf has one",
            )
        low, high = reflected_interval(value, resampled, floor=0)
        note = f"biased upwards by about {bias:.2g}; reflected bootstrap interval ({len(resampled)}), without it"
        return low, high, note + (", clipped at 0" if low == 0 else "")


def bootstrap_of(subject: Subject, replicates: int) -> Array:
    """The bootstrap distances of a subject, computed once; a fifth as many where one of them takes seconds."""
    real, generated = features.of_test(subject).values, features.of_samples(subject).values
    count = replicates if real.shape[1] <= _WIDE else replicates // 5
    return features.cached(
        subject,
        f"frechet bootstrap {count}",
        lambda: bootstrap_distances(
            real=real,
            generated=generated,
            replicates=count,
            rng=features.generator(subject, "frechet bootstrap"),
            strata=features.strata(subject),
        ),
    )
