"""The birthday paradox: how many images a model can draw, told by how soon two of its samples are near-duplicates.

Arora and Zhang 2017, arXiv:1706.08224: if among s samples two are near-duplicates with probability 1/2, the support is
about s^2. Exactly, of N equally likely images two are the same with probability 1/N, which is estimated here by the
share of all pairs of samples that are near-duplicates; s is found by looking at the samples in random orders. For
equally likely images N = s^2 / (2 ln 2) up to terms of order s.

Where images are not equally likely, 1 / (share of pairs) is 1 / sum p_i^2, less than their number: a generator that
draws one image half the time reads 4, whatever the other half is.

The paper's authors judged nearest pairs by eye. Here a near-duplicate is a pair nearer than all but a few of the pairs
of real images, in features. So real images have a number R of their own, which stands beside the samples': it is what
equal distributions would read, N different images read 1 / (1 / N + 1 / R), and no larger support than R can be told.
Samples that lie further apart than real images do, such as noise, read more than R, and are none the better for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from baselines.data.likelihood import subset
from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope

REAL_PAIRS = 50  # nearest pairs of real images, which set how near is a near-duplicate
LEAST_PAIRS = 10  # of samples that are near-duplicates, for an estimate
LEAST_REAL = 30  # real images
MOST = 4000  # images of a set, whose pairs are all looked at
ORDERS = 1000  # random orders of the samples in which the first near-duplicate is sought
_EDGES = 5000  # near-duplicates at most that an order is told by: of a collapsed generator some samples say enough
_BLOCK, _PART = 512, 100_000
_UNSURE = 1e-7  # below this share of |x|^2 + |y|^2 a squared distance has lost digits

Pairs = NDArray[np.int64]


class Support(NamedTuple):
    """What the near-duplicates among M samples tell."""

    pairs: int  # near-duplicates
    value: float  # 1 / their share of all pairs
    low: float  # 95 % interval
    high: float  # infinite where the error is as large as the share itself
    batch: float  # s: so many samples hold a near-duplicate with probability 1/2


def nearest_distances(x: Array, count: int) -> Array:
    """The `count` smallest squared distances among all pairs of x (N, d), rising."""
    kept = np.empty(0)
    for rows, squared in _blocks(x):
        found = squared[np.arange(len(x)) > np.arange(rows.start, rows.stop)[:, None]]
        kept = np.sort(np.concatenate([kept, np.partition(found, count)[:count] if len(found) > count else found]))
        kept = kept[:count]
    return kept


def pairs_within(x: Array, limit: float) -> Pairs:
    """(P, 2) the pairs i < j of x (N, d) whose squared distance is at most `limit`."""
    found = []
    for rows, squared in _blocks(x):
        i, j = np.nonzero(squared <= limit)
        later = j > i + rows.start
        found.append(np.stack([i[later] + rows.start, j[later]], 1))
    return np.concatenate(found)


def support_of(pairs: Pairs, samples: int, rng: np.random.Generator) -> Support:
    """What the near-duplicates (P, 2) among so many samples tell; there must be one at least.

    The interval is the jackknife's over samples on the logarithm of the share. Pairs of rare images are counted with
    twice their error, so it is wide where there are few.
    """
    total = samples * (samples - 1) / 2
    degrees = np.bincount(pairs.ravel(), minlength=samples)
    share = len(pairs) / total
    without = (len(pairs) - degrees) / (total - (samples - 1))
    error = math.sqrt((samples - 1) / samples * float(((without - without.mean()) ** 2).sum()))
    reach = math.exp(1.96 * error / share)
    return Support(len(pairs), 1 / share, 1 / share / reach, reach / share, first_repeat(pairs, samples, rng))


def first_repeat(pairs: Pairs, samples: int, rng: np.random.Generator) -> float:
    """The median over random orders of the samples of how many it takes until two are near-duplicates."""
    kept = samples
    if len(pairs) > _EDGES:  # fewer samples, still with thousands of near-duplicates
        kept = max(64, int(samples * math.sqrt(_EDGES / len(pairs))))
        chosen = np.full(samples, -1)
        chosen[rng.permutation(samples)[:kept]] = np.arange(kept)
        pairs = chosen[pairs]
        pairs = pairs[(pairs >= 0).all(1)]
    found = [1 + rng.permutation(kept)[pairs].max(1).min() for _ in range(ORDERS)]
    return float(np.median(found))


def least_support(pairs: int, samples: int) -> float:
    """The support that so few near-duplicates rule out to be smaller, at 95 % (an exact Poisson bound)."""
    return samples * (samples - 1) / 2 / float(chi2.ppf(0.95, 2 * pairs + 2) / 2)


class Birthday:
    """`birthday_support[extractor]` and `birthday_batch[extractor]`."""

    name = "birthday"
    description = "Number of different images that the samples' near-duplicates tell of (birthday paradox)"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be told; None if it can."""
        reason = features.missing(subject, least=LEAST_REAL)
        if reason is not None:
            return reason
        found = _found(subject)
        if len(found.pairs) >= LEAST_PAIRS:
            return None
        least = least_support(len(found.pairs), found.samples)
        return (
            f"{len(found.pairs)} near-duplicates among {found.samples} samples, needs {LEAST_PAIRS}: the support is "
            f"above {least:.2g} (95 %), where real images read {found.real:.2g}"
        )

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Both numbers."""
        found = _found(subject)
        told = support_of(found.pairs, found.samples, features.generator(subject, "birthday"))
        settings = {"near": f"within the {found.real_pairs} nearest pairs of {found.reals} real images", "most": MOST}
        protocol = features.protocol(subject, self.version, **settings)
        note = (
            f"{told.pairs} near-duplicates among {found.samples} samples; real images read {found.real:.3g}, and no "
            "larger support can be told; it is 1 / sum p^2, at most the number of different images, and "
            "near-duplicates are such in features"
        )
        named = [features.named(subject, f"{self.name}_{what}") for what in ("support", "batch")]
        finite = math.isfinite(told.high)
        support = Measurement(
            metric=named[0],
            value=told.value,
            unit="",
            better="none",
            n=found.samples,
            scope=self.scope,
            low=told.low if finite else None,
            high=told.high if finite else None,
            protocol=protocol,
            note=f"{note}; jackknife interval of the logarithm, on the wide side",
        )
        batch = Measurement(
            metric=named[1],
            value=told.batch,
            unit="",
            better="none",
            n=found.samples,
            scope=self.scope,
            protocol=protocol,
            note=f"samples until two are near-duplicates, median of {ORDERS} random orders of the same samples; "
            "the paper's support is its square; no interval of its own",
        )
        return support, batch


class _Found(NamedTuple):
    pairs: Pairs  # of samples
    samples: int
    real: float  # what real images read
    real_pairs: int
    reals: int


def _found(subject: Subject) -> _Found:
    return features.cached(subject, "birthday", lambda: _find(subject))


def _find(subject: Subject) -> _Found:
    """Near-duplicates among the samples, by a distance that real images set: train and held-out ones together."""
    held, train = features.of_test(subject).values, subject.train
    fits = train is not None and subject.reference is not None and train.shape.chw == subject.reference.shape.chw
    real = np.concatenate([features.of(subject, train).values, held]) if train is not None and fits else held
    real, samples = _some(real), _some(features.of_samples(subject).values)
    real, samples = real - real.mean(0), samples - real.mean(0)
    wanted = min(REAL_PAIRS, len(real) * (len(real) - 1) // 2)
    limit = float(nearest_distances(real, wanted)[-1])
    limit += 1e-9 * float((real**2).sum(1).mean())  # networks round: the features of copies differ by a little
    reached = len(pairs_within(real, limit))
    reads = len(real) * (len(real) - 1) / 2 / reached
    return _Found(pairs_within(samples, limit), len(samples), reads, reached, len(real))


def _some(x: Array) -> Array:
    """At most MOST rows, the same ones of every set of this size."""
    return x if len(x) <= MOST else x[subset(len(x), MOST).numpy()]


def _blocks(x: Array) -> Iterator[tuple[range, Array]]:
    """Rows and their squared distances (rows, N) to all of x; small ones by the sum of squared differences."""
    norms = (x**2).sum(1)
    for first in range(0, len(x), _BLOCK):
        rows = range(first, min(first + _BLOCK, len(x)))
        squared = norms[first : rows.stop, None] + norms - 2 * x[first : rows.stop] @ x.T
        i, j = np.nonzero(squared <= _UNSURE * (norms[first : rows.stop, None] + norms))
        for part in range(0, len(i), _PART):
            a, b = i[part : part + _PART], j[part : part + _PART]
            squared[a, b] = ((x[first + a] - x[b]) ** 2).sum(1)
        yield rows, squared
