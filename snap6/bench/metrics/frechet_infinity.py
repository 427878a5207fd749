"""The Fréchet distance extrapolated to infinitely many images, which takes the bias of its estimate out.

Chong & Forsyth 2020, arXiv:1911.07023: the bias is linear in 1/N. They shrink the generated set alone; here
both sets shrink by the same factor f, bias = (a/N + b/M)/f, so that the intercept at 1/f = 0 is free of both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.metrics.frechet import bootstrap_of, frechet_distance
from bench.record import Measurement, Scope
from bench.stats import Strata, line_at_zero, normal_interval

POINTS = 6  # sizes, evenly spaced in 1/N
SUBSETS = 8  # random subsets of each size
LEAST_RATIO = 2.5  # smallest N/d of a subset; further down the bias is no longer linear in 1/N
WIDEST = 4.0  # largest 1/f; further out the curvature of the bias tells more than its slope


class Extrapolation(NamedTuple):
    """The distance at 1/N = 0 and the standard error of the line fit, which knows of the subsets alone."""

    value: float
    fit_error: float


def frechet_infinity(
    *, real: Array, generated: Array, rng: np.random.Generator, strata: Strata | None = None
) -> Extrapolation:
    """Squared Fréchet distance at infinite sample size.

    Args:
        real: (N, d).
        generated: (M, d).
        rng: which subsets are drawn.
        strata: groups of the real images whose shares no subset changes, as in `bootstrap_distances`.

    Raises:
        ValueError: if N or M is too small to fit a line, see `reach`.
    """
    widest = reach(real, generated)
    if widest is None:
        raise ValueError(
            f"FD at infinity: expected N/d of {least():g} or more, got {features.ratio(real, generated):g}"
        )
    inverse = np.linspace(1, widest, POINTS)
    distances = [frechet_distance(real=real, generated=generated)]
    strata, plain = strata or Strata.of(np.zeros(len(real))), Strata.of(np.zeros(len(generated)))
    for shrink in inverse[1:]:
        found = []
        for _ in range(SUBSETS):
            chosen, drawn = strata.subset(shrink, rng), plain.subset(shrink, rng)
            found.append(frechet_distance(real=real[chosen], generated=generated[drawn]))
        distances.append(float(np.mean(found)))
    return Extrapolation(*line_at_zero(inverse, distances))


def reach(real: Array, generated: Array) -> float | None:
    """The largest factor by which the sets are shrunk; None if there are too few images to shrink at all."""
    widest = min(WIDEST, features.ratio(real, generated) / LEAST_RATIO)
    return widest if widest >= least() / LEAST_RATIO else None


def least() -> float:
    """The smallest N/d for which an extrapolation is made."""
    return 1.5 * LEAST_RATIO


class FrechetInfinity:
    """`fd_inf[extractor]`: comparable between different numbers of images, unlike the distance itself."""

    name = "fd_inf"
    description = "Fréchet distance extrapolated to infinitely many images, free of its bias"
    scope: Scope = "draw"
    version = 1

    def __init__(self, replicates: int = 200) -> None:
        self.replicates = replicates

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no extrapolation; None if there is one."""
        reason = features.missing(subject, least=2)
        if reason is not None:
            return reason
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        if reach(real, generated) is None:
            return f"needs N/d of at least {least():g}, got {features.ratio_note(real, generated)}"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number; it may be slightly negative, as an unbiased estimate of 0 must."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        rng = features.generator(subject, "frechet infinity")
        value, fit_error = frechet_infinity(real=real, generated=generated, rng=rng, strata=features.strata(subject))
        sampling_error = float(bootstrap_of(subject, self.replicates).std(ddof=1))
        low, high = normal_interval(value, math.hypot(fit_error, sampling_error))
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
                    points=POINTS,
                    subsets=SUBSETS,
                    least_ratio=LEAST_RATIO,
                    widest=WIDEST,
                ),
                note=f"{features.ratio_note(real, generated)}; standard errors: line fit {fit_error:.2g}, "
                f"sampling (bootstrap) {sampling_error:.2g}",
            ),
        )
