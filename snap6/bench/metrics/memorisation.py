"""Memorisation: whether samples lie nearer to the train images than to held-out ones, more than chance brings them.

The nearest of all real images to a sample of a model that does not memorise is as likely any train image as any
held-out one. The comparison of three sets follows Meehan et al. 2020, arXiv:2004.05675 (data copying), whose
Mann-Whitney statistic sets samples against held-out images by their distance to the train images; it falls with the
samples' quality too, which the distances of one sample to both sets do not.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import normal_interval

BLOCK = 1024  # samples of a distance block
_COLUMNS = 8192  # real images of it
_SAME = 1e-10
"""Share of |x|^2 + |y|^2 up to which a squared distance is 0: float32 networks give copies no nearer than that."""
_TIED = 1e-9  # relative difference up to which two squared distances are equal
EFFECTIVE = 40
"""An interval is given where the nearest images of either set number so many in effect, M^2 / sum of (hits)^2."""
_CALIBRATED_BY = 2000  # most held-out images whose own ratio calibrates the samples'


class Nearest(NamedTuple):
    """Of each of M points the squared distances to the nearest and second image of a set, and which is nearest."""

    first: Array  # (M,)
    second: Array  # (M,)
    which: NDArray[np.int64]  # (M,)


class TrainShare(NamedTuple):
    """In [0, 1], its jackknife standard error, and the effective number of nearest images in the poorer set."""

    value: float
    error: float
    effective: float


def nearest_two(points: Array, images: Array, block: int = BLOCK, own: NDArray[np.int64] | None = None) -> Nearest:
    """The nearest two of N >= 2 images (N, d) to each of the points (M, d).

    Args:
        points: about the origin, so that squared distances keep their digits.
        images: about the same origin.
        block: points handled at a time; changes memory, not the value.
        own: (M,) an image that each point is itself, and that does not count.
    """
    best = np.full((len(points), 2), np.inf)
    which = np.zeros(len(points), np.int64)
    norms = (images**2).sum(1)
    for i in range(0, len(points), block):
        rows = np.arange(i, min(i + block, len(points)))
        at = np.arange(len(rows))
        for j in range(0, len(images), _COLUMNS):
            squared = _squared(points[rows], images[j : j + _COLUMNS], norms[j : j + _COLUMNS])
            if own is not None:
                inside = np.flatnonzero((own[rows] >= j) & (own[rows] < j + squared.shape[1]))
                squared[inside, own[rows][inside] - j] = np.inf
            nearest = squared.argmin(1)
            first = squared[at, nearest]
            squared[at, nearest] = np.inf
            which[rows] = np.where(first < best[rows, 0], nearest + j, which[rows])
            best[rows] = np.sort(np.column_stack([best[rows], first, squared.min(1)]), axis=1)[:, :2]
    return Nearest(best[:, 0], best[:, 1], which)


def _squared(a: Array, b: Array, b_norms: Array) -> Array:
    squared = a @ b.T
    squared *= -2
    scale = (a**2).sum(1)[:, None] + b_norms
    squared += scale
    scale *= _SAME
    squared[squared <= scale] = 0
    return squared


def train_share(*, train: Nearest, held_out: Nearest, trained: int, held: int) -> TrainShare:
    """How often a train image is nearest, per train image, over the same and how often a held-out one is, per one.

    With s the share of samples nearer to a train image, ties counted half: (s / n) / (s / n + (1 - s) / m). 0.5 where
    train and held-out images are as good as exchanged, whatever their numbers n and m; 1 where each sample is a copy
    of a train image, which equal numbers by subsampling would miss, as they leave out most of what was copied.

    The error is the delete-one jackknife over samples, train and held-out images. In simulations of 2 to 32
    dimensions it is 0.95 to 1.9 times the true one where `effective` is 40 or more; a binomial error, which knows
    nothing of the images that samples share as neighbours, is down to a fifth of the true one.

    Args:
        train: nearest train images of M samples.
        held_out: nearest held-out images of the same samples.
        trained: n, the number of train images.
        held: m, the number of held-out images.
    """
    wins, count = _wins(train.first, held_out.first), len(train.first)
    share = float(wins.mean())
    value = _per_image(np.array(share), trained, held)
    gone_train = np.bincount(train.which, _wins(train.second, held_out.first) - wins, trained) / count
    gone_held = np.bincount(held_out.which, _wins(train.first, held_out.second) - wins, held) / count
    without = (
        _per_image((count * share - wins) / max(count - 1, 1), trained, held),
        _per_image(share + gone_train, trained - 1, held),
        _per_image(share + gone_held, trained, held - 1),
    )
    error = math.sqrt(sum((len(values) - 1) * float(values.var()) for values in without))
    hits = [np.bincount(near.which) for near in (train, held_out)]
    return TrainShare(float(value), error, min(count**2 / float((h**2).sum()) for h in hits))


def _wins(train: Array, held_out: Array) -> Array:
    """1 where the train image is nearer, 1/2 where both are as near."""
    return np.where(_equal(train, held_out), 0.5, (train < held_out).astype(np.float64))


def _equal(a: Array, b: Array) -> NDArray[np.bool_]:
    """Up to rounding: between pixels of few levels, equal distances are common."""
    return np.isclose(a, b, rtol=_TIED, atol=0)


def _per_image(share: Array, trained: int, held: int) -> Array:
    share = share.clip(0, 1)  # rounding of sums
    rate = share / trained
    found: Array = rate / (rate + (1 - share) / held)
    return found


def median_ratio(train: Nearest, held_out: Nearest) -> float:
    """Median of (distance to the nearest train image) / (to the nearest held-out one); 0/0 counts as 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt(train.first / held_out.first)
    return float(np.median(np.where(_equal(train.first, held_out.first), 1, ratios)))


class _Found(NamedTuple):
    """What both numbers are made of."""

    share: TrainShare
    ratio: float  # of the samples
    usual: float  # of held-out images


class Memorisation:
    """`nn_train_share[extractor]` and `nn_train_ratio[extractor]`."""

    name = "memorisation"
    description = "Whether samples are nearer to train than to held-out images: 0.5 and 1 by chance, 1 and 0 for copies"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be told; None if it can."""
        reason = features.missing(subject, least=2)
        if reason is not None:
            return reason
        train, held = subject.train, subject.reference
        assert held is not None
        if train is None:
            return "the images that the model learned from are not known"
        if len(train) < 2:
            return f"needs at least 2 {train.what}, got {len(train)}"
        if train.shape.chw != held.shape.chw:
            sizes = [" x ".join(map(str, images.shape.chw)) for images in (train, held)]
            return f"needs real images of one size, got {train.what} of {sizes[0]} and {held.what} of {sizes[1]}"
        if train.content() == held.content():
            return f"the {train.what} and the {held.what} are the same"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """The share, and the ratio where it is finite."""
        assert subject.train is not None
        found = _found(subject)
        low, high, note = _interval(found.share)
        ratio = found.ratio / found.usual if found.usual > 0 else math.inf
        finite = math.isfinite(ratio)
        told = "" if finite else "; no ratio: half of the images have a twin in one of the real sets"
        shared = {"n_train": len(subject.train), "train_split": subject.train.split}
        count = len(features.of_samples(subject).values)
        share = Measurement(
            metric=features.named(subject, "nn_train_share"),
            value=found.share.value,
            unit="",
            better="none",
            n=count,
            scope=self.scope,
            low=low,
            high=high,
            protocol=features.protocol(subject, self.version, **shared, weighted="per real image, ties half"),
            note=f"0.5 for a model that does not memorise, 1 for a copier; {note}{told}",
        )
        usual = Measurement(
            metric=features.named(subject, "nn_train_ratio"),
            value=ratio,
            unit="",
            better="none",
            n=count,
            scope=self.scope,
            protocol=features.protocol(subject, self.version, **shared, over="the held-out images' own median ratio"),
            note=f"median {found.ratio:.3g} of the samples over {found.usual:.3g} of held-out images, each left out of "
            "its set; 1 for a model that does not memorise, 0 for a copier; no interval: a median of ratios that "
            "share their images has no simple error",
        )
        return (share, usual) if finite else (share,)


def _interval(share: TrainShare) -> tuple[float | None, float | None, str]:
    if share.effective < EFFECTIVE:
        told = f"no interval: it takes samples near {EFFECTIVE} images in effect, got {share.effective:.3g}"
        return None, None, told
    low, high = np.clip(normal_interval(share.value, share.error), 0, 1)
    return float(low), float(high), "jackknife interval over all three sets, on the wide side"


def _found(subject: Subject) -> _Found:
    assert subject.train is not None
    train, held = features.of(subject, subject.train).values, features.of_test(subject).values
    centre = train.mean(0)
    samples, train, held = (x - centre for x in (features.of_samples(subject).values, train, held))
    unit = max(float(np.abs(x).max()) for x in (samples, train, held)) or 1.0
    samples, train, held = samples / unit, train / unit, held / unit
    near_train, near_held = nearest_two(samples, train), nearest_two(samples, held)
    share = train_share(train=near_train, held_out=near_held, trained=len(train), held=len(held))
    own = np.linspace(0, len(held) - 1, min(len(held), _CALIBRATED_BY)).round().astype(np.int64)
    usual = median_ratio(nearest_two(held[own], train), nearest_two(held[own], held, own=own))
    return _Found(share, median_ratio(near_train, near_held), usual)
