"""Mode collapse as a classifier sees it: how many classes occur among the samples, and how unevenly.

Metz et al. 2017, arXiv:1611.02163 (number of modes and KL on stacked MNIST); Lin et al. 2018, arXiv:1712.04086
(PacGAN). They compare with uniform classes; here the histogram of the real images is compared with, as the same
classifier assigns them, so that its errors stand on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.metrics.images import Labels
from bench.record import Measurement, Scope
from bench.stats import reflected_interval

Counts = NDArray[np.int64]
LEAST_REAL = 10
"""An interval is given where each class that the samples hit has so many real images; resamples of fewer lose it."""


def class_counts(logits: Array) -> Counts:
    """How many of N images, logits (N, K), are assigned to each class by the largest logit, (K,)."""
    return np.bincount(logits.argmax(1), minlength=logits.shape[1])


def expected_modes(*, real: Counts, samples: int) -> float:
    """E[number of classes] among independent samples of the real images' histogram: sum of 1 - (1 - p)^M."""
    p = real / real.sum()
    return float((1 - (1 - p) ** samples).sum())


def histogram_divergence(*, real: Counts, generated: Counts) -> float:
    """KL(generated || real) in nats of two histograms (K,); infinite if a class has samples and no real image."""
    return float(_divergence(generated / generated.sum(), real / real.sum()))


def _divergence(p: Array, q: Array) -> Array:
    """KL(p || q) over the last axis."""
    found: Array = rel_entr(p, q).sum(-1)
    return found


def bootstrap_divergences(
    *,
    classes: NDArray[np.int64],
    generated: Counts,
    replicates: int,
    rng: np.random.Generator,
    groups: Labels | None = None,
) -> Array:
    """The divergence of resampled histograms, (replicates,).

    A class that a resample of the real images misses counts as half an image of them.

    Args:
        classes: (N,) to which each real image is assigned.
        generated: (K,) counts of the samples.
        replicates: how many.
        rng: for resampling.
        groups: (N,) labels of the real images whose shares no resample changes.
    """
    k, n, m = len(generated), len(classes), int(generated.sum())
    labels = np.zeros(n, np.int64) if groups is None else groups
    drawn = np.zeros((replicates, k), np.int64)
    for label in np.unique(labels):
        own = np.bincount(classes[labels == label], minlength=k)
        drawn += rng.multinomial(int(own.sum()), own / own.sum(), size=replicates)
    seen = np.bincount(classes, minlength=k) > 0
    return _divergence(rng.multinomial(m, generated / m, size=replicates) / m, np.where(seen, drawn.clip(0.5), 0) / n)


class Modes:
    """`modes[extractor]`: classes with a sample."""

    name = "modes"
    description = "Number of classes that at least one sample is assigned to; few mean a collapse"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why they cannot be counted; None if they can."""
        return features.missing(subject, least=2, logits=True)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One count, between 1 and the number of the classifier's classes."""
        real, generated = _counts(subject)
        m = int(generated.sum())
        note = (
            f"of {len(real)} classes, {np.count_nonzero(real)} with real images; equal distributions would reach "
            f"{expected_modes(real=real, samples=m):.4g}; no interval: it is a count among so many samples"
        )
        return (
            Measurement(
                metric=features.named(subject, self.name),
                value=float(np.count_nonzero(generated)),
                unit="",
                better="higher",
                n=m,
                scope=self.scope,
                protocol=features.protocol(subject, self.version, assigned="to the largest logit"),
                note=note,
            ),
        )


class ModeDivergence:
    """`mode_kl[extractor]`: how far the samples' classes are from the real images', in nats."""

    name = "mode_kl"
    description = "KL divergence of the samples' class histogram from the real images', in nats"
    scope: Scope = "draw"
    version = 1

    def __init__(self, replicates: int = 1000) -> None:
        self.replicates = replicates

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no divergence; None if there is one."""
        reason = features.missing(subject, least=2, logits=True)
        if reason is not None:
            return reason
        real, generated = _counts(subject)
        stray = np.count_nonzero(generated[real == 0])
        return (
            f"infinite: samples are assigned to {stray} of {len(real)} classes that no real image is assigned to"
            if stray
            else None
        )

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number from 0 on."""
        real, generated = _counts(subject)
        value = histogram_divergence(real=real, generated=generated)
        low, high, told = self._interval(subject, value, real, generated)
        classes, m = int(np.count_nonzero(real)), int(generated.sum())
        # the chi-squared limit of 2 M KL; fixed shares leave the real histogram without chance, up to misassignment
        chance = (classes - 1) / 2 * (1 / m + (0 if features.fixed_shares(subject) is not None else 1 / real.sum()))
        note = f"{classes} classes; equal distributions would have about {chance:.2g} on average; {told}"
        return (
            Measurement(
                metric=features.named(subject, self.name),
                value=value,
                unit="nats",
                better="lower",
                n=m,
                scope=self.scope,
                low=low,
                high=high,
                protocol=features.protocol(subject, self.version, assigned="to the largest logit"),
                note=note,
            ),
        )

    def _interval(
        self, subject: Subject, value: float, real: Counts, generated: Counts
    ) -> tuple[float | None, float | None, str]:
        least = int(real[generated > 0].min())
        if least < LEAST_REAL:
            return None, None, f"no interval: it takes {LEAST_REAL} real images in a class, got {least}"
        logits = features.of_test(subject).logits
        assert logits is not None
        found = bootstrap_divergences(
            classes=logits.argmax(1),
            generated=generated,
            replicates=self.replicates,
            rng=features.generator(subject, "mode divergence"),
            groups=features.fixed_shares(subject),
        )
        low, high = reflected_interval(value, found, floor=0)
        if high == 0:
            return None, None, "no interval: it is less than chance alone would bring"
        return low, high, f"reflected bootstrap interval ({self.replicates})"


def _counts(subject: Subject) -> tuple[Counts, Counts]:
    """The histograms of the real images and of the samples."""
    real, generated = features.of_test(subject).logits, features.of_samples(subject).logits
    assert real is not None
    assert generated is not None
    return class_counts(real), class_counts(generated)
