"""Kernel distance: the squared MMD with a cubic kernel, as the full unbiased U-statistic over all pairs.

Binkowski et al. 2018, arXiv:1801.01401 (KID).
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.metrics.mmd import BLOCK, Discrepancy, mmd2
from bench.record import Measurement, Scope
from bench.stats import normal_interval


def kernel_distance(
    *, real: Array, generated: Array, classes: ArrayLike | None = None, block: int = BLOCK
) -> Discrepancy:
    """Unbiased squared MMD with k(x, y) = (x.y / d + 1)^3; arguments and errors as in `mmd2`."""
    return mmd2(kernel=_cubic, real=real, generated=generated, classes=classes, block=block)


def _cubic(a: Array, b: Array) -> Array:
    k = a @ b.T
    k *= 1 / a.shape[1]
    k += 1
    return k * k * k


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
