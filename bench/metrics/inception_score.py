"""Inception score: exp of the mutual information between an image and the class that a classifier sees in it.

Salimans et al. 2016, arXiv:1606.03498; Barratt & Sharma 2018, arXiv:1801.01973 on its splits and its limits.
"""

from __future__ import annotations

import itertools

import numpy as np

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import reflected_interval, resample_counts

_BLOCK = 64  # rows at a time: 1,000 classes of them fit into a core's cache
_TINY = float(np.finfo(np.float64).tiny)

INTERVAL_RATIO = 2.0  # images a class from which on resampling tells the bias of the mean prediction's entropy


def inception_score(*, probabilities: Array, splits: int = 1) -> float:
    """exp(E KL(p(y|x) || p(y))), between 1 and the number of classes.

    Args:
        probabilities: (N, K), rows sum to 1; zeros are allowed, an unused class adds nothing.
        splits: consecutive parts of which the mean score is taken; a part of n images cannot score above n.

    Raises:
        ValueError: if there are fewer images than splits, or rows are no distributions.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or splits < 1 or len(p) < splits:
        raise ValueError(f"inception score: expected (N >= {splits} splits, K), got shape {p.shape}")
    if p.min() < 0 or not np.allclose(p.sum(1), 1, atol=1e-6):
        raise ValueError("inception score: expected rows that are probabilities and sum to 1")
    edges = [i * len(p) // splits for i in range(splits + 1)]
    return float(np.mean([_score(p[a:b]) for a, b in itertools.pairwise(edges)]))


def _score(p: Array) -> float:
    return float(np.exp(_entropy(p.mean(0)) - _entropy(p).mean()))


def class_probabilities(logits: Array) -> Array:
    """Softmax of each row, (N, K) float64, in blocks that stay in the cache."""
    p = np.array(logits, np.float64)
    for i in range(0, len(p), _BLOCK):
        rows = p[i : i + _BLOCK]
        rows -= rows.max(1, keepdims=True)
        np.exp(rows, out=rows)
        rows /= rows.sum(1, keepdims=True)
    return p


def _entropy(p: Array) -> Array:
    """Of the last axis, in nats; 0 ln 0 is 0. numpy's log takes eight numbers at once, scipy's xlogy one."""
    rows = p.reshape(-1, p.shape[-1])
    found = np.empty(len(rows))
    for i in range(0, len(rows), _BLOCK):
        held = rows[i : i + _BLOCK]
        found[i : i + _BLOCK] = -np.einsum("nk,nk->n", held, np.log(np.maximum(held, _TINY)))
    return found.reshape(p.shape[:-1])


def bootstrap_scores(*, probabilities: Array, replicates: int, rng: np.random.Generator) -> Array:
    """The score of resamples of the images, in one split, (replicates,)."""
    weights = resample_counts(len(probabilities), replicates, rng) / len(probabilities)
    scores: Array = np.exp(_entropy(weights @ probabilities) - weights @ _entropy(probabilities))
    return scores


class InceptionScore:
    """`is[extractor]`, or `is` in Inception's logits. It never sees the real images."""

    name = "is"
    description = "Inception score: how sure the classifier is of each sample, and how varied it finds them"
    scope: Scope = "draw"
    version = 1

    def __init__(self, splits: int = 1, replicates: int = 1000) -> None:
        self.splits = splits
        self.replicates = replicates

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no score; None if there is one."""
        return features.missing(subject, least=max(2, self.splits), logits=True)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number between 1 and the number of classes."""
        logits = features.of_samples(subject).logits
        assert logits is not None
        probabilities = class_probabilities(logits)
        value = inception_score(probabilities=probabilities, splits=self.splits)
        low, high, note = self._interval(subject, value, probabilities)
        return (
            Measurement(
                metric="is" if features.is_inception(subject) else features.named(subject, self.name),
                value=value,
                unit="",
                better="higher",
                n=len(probabilities),
                scope=self.scope,
                low=low,
                high=high,
                protocol=features.protocol(subject, self.version, splits=self.splits),
                note=note,
            ),
        )

    def _interval(self, subject: Subject, value: float, p: Array) -> tuple[float | None, float | None, str]:
        n, classes = p.shape
        if self.splits > 1:
            return None, None, "no interval: the score of several splits has another bias than a resample's"
        if n < INTERVAL_RATIO * classes:
            return (
                None,
                None,
                f"no interval: it takes {INTERVAL_RATIO:g} images a class, got {n} for {classes}",
            )
        rng = features.generator(subject, "inception score")
        scores = bootstrap_scores(probabilities=p, replicates=self.replicates, rng=rng)
        low, high = np.exp(reflected_interval(np.log(value), np.log(scores), floor=0)).clip(1, classes)
        note = f"{classes} classes; reflected bootstrap interval ({self.replicates}) of the logarithm"
        return float(low), float(high), note
