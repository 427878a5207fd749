"""Simulations whose truth is known, measured by the very metrics whose intervals the suite prints.

Gaussian features have a Fréchet distance in closed form (Dowson & Landau 1982) and, under the cubic kernel, a squared
MMD by Isserlis' theorem (Isserlis 1918, Biometrika 12); the other truths are those of the distributions drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.special import softmax, xlogy
from torch import Tensor

from baselines.noise import derive_seed
from baselines.types import ImageShape
from bench.metrics.base import Array, Features, Metric, Subject
from bench.metrics.frechet import Frechet
from bench.metrics.frechet_infinity import FrechetInfinity
from bench.metrics.images import Held
from bench.metrics.inception_score import InceptionScore
from bench.metrics.kernel import Kernel
from bench.stats import Estimate, mean_over_images, mean_over_seeds

DIMENSIONS, RATIOS = (16, 64), (3, 10, 25)  # d and N/d of the Gaussian features
CLASSES, SCORED = 10, (50, 200, 1000)  # of the inception score, and N
IMAGES, SEEDS = (100, 360, 1000), (3, 5, 10)
_HUGE = 400_000  # draws behind a truth that has no closed form


@dataclass(frozen=True)
class Trial:
    """One interval beside the truth that it should hold; no bounds where the metric gave no interval."""

    interval: str  # the metric family's name, or what else the interval is of
    truth: float
    low: float | None
    high: float | None


class Case(Protocol):
    """A distribution and a sample size."""

    @property
    def name(self) -> str:
        """Of the distributions."""
        ...

    @property
    def size(self) -> str:
        """Of the sample."""
        ...

    @property
    def weight(self) -> int:
        """Repetitions for each one asked for: cheap cases are repeated more often."""
        ...

    def trials(self, seed: int) -> list[Trial]:
        """Draw one sample and take its intervals."""
        ...


@dataclass(frozen=True)
class Gaussians:
    """Two Gaussians with variances 1, 1/2, ..., 1/d, the second one moved and stretched in units of the first."""

    d: int
    shift: float = 0.0  # deviations, along every axis
    stretch: float = 1.0  # factor of every deviation

    def moments(self) -> tuple[Array, Array, Array, Array]:
        """Mean and variances (d,) of the first, then of the second."""
        variances: Array = 1 / np.arange(1.0, self.d + 1)
        return np.zeros(self.d), variances, self.shift * np.sqrt(variances), self.stretch**2 * variances

    def frechet(self) -> float:
        """|m1 - m2|^2 + sum of (sigma1 - sigma2)^2, as the covariances commute."""
        mean_x, var_x, mean_y, var_y = self.moments()
        return float(((mean_x - mean_y) ** 2).sum() + ((np.sqrt(var_x) - np.sqrt(var_y)) ** 2).sum())

    def kernel(self) -> float:
        """E k(x, x') + E k(y, y') - 2 E k(x, y)."""
        mean_x, var_x, mean_y, var_y = self.moments()
        within = cubic_expectation(mean_x, var_x, mean_x, var_x) + cubic_expectation(mean_y, var_y, mean_y, var_y)
        return within - 2 * cubic_expectation(mean_x, var_x, mean_y, var_y)

    def draw(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """n of each, (n, d)."""
        mean_x, var_x, mean_y, var_y = self.moments()
        first = mean_x + np.sqrt(var_x) * rng.standard_normal((n, self.d))
        return first, mean_y + np.sqrt(var_y) * rng.standard_normal((n, self.d))


def cubic_expectation(mean_x: Array, var_x: Array, mean_y: Array, var_y: Array) -> float:
    """E (x.y / d + 1)^3 of independent x, y with diagonal covariances; moments (d,), by Isserlis' theorem."""
    d = len(mean_x)
    a = float(mean_x @ mean_y)
    second = a**2 + float(var_x @ mean_y**2 + var_y @ mean_x**2 + var_x @ var_y)
    third = (
        a**3
        + 3 * a * float(var_x @ mean_y**2 + var_y @ mean_x**2 + var_x @ var_y)
        + 6 * float((mean_x * mean_y) @ (var_x * var_y))
    )
    return 1 + 3 * a / d + 3 * second / d**2 + third / d**3


@dataclass(frozen=True)
class FeatureCase:
    """Fréchet or kernel distances of N features of either Gaussian."""

    name: str
    law: Gaussians
    ratio: int  # N/d
    kernel: bool = False  # kid, which needs no resampling and is repeated more often; otherwise fd and fd_inf

    @property
    def weight(self) -> int:
        """Repetitions for each one asked for."""
        return 4 if self.kernel else 1

    @property
    def size(self) -> str:
        """`d = 16, N/d = 3`."""
        return f"d = {self.law.d}, N/d = {self.ratio}"

    def trials(self, seed: int) -> list[Trial]:
        """The distances of one sample."""
        real, generated = self.law.draw(self.ratio * self.law.d, np.random.default_rng(seed))
        subject = subject_of(real, generated, None, seed)
        if self.kernel:
            return [_trial(Kernel(), self.law.kernel(), subject)]
        return [_trial(metric, self.law.frechet(), subject) for metric in (Frechet(), FrechetInfinity())]


@dataclass(frozen=True)
class ScoreCase:
    """The inception score of N softmaxes of Gaussian logits with mean `mean` (K,) and deviation `deviation`."""

    name: str
    n: int
    mean: tuple[float, ...]
    deviation: float
    truth: float
    weight: int = 5

    @property
    def size(self) -> str:
        """`N = 50`."""
        return f"N = {self.n}"

    def trials(self, seed: int) -> list[Trial]:
        """The score of one sample."""
        logits = _logits(self.mean, self.deviation, self.n, seed)
        return [_trial(InceptionScore(), self.truth, subject_of(logits, logits, logits, seed))]


@dataclass(frozen=True)
class MeanCase:
    """The mean of n values, log-normal where they are skewed, by one of the intervals of means."""

    name: str
    interval: str
    n: int
    unit: str  # N | seeds
    estimate: Callable[[Array], Estimate]
    sigma: float | None  # of the logarithm; None: normal values
    weight: int = 10

    @property
    def size(self) -> str:
        """`N = 100` or `3 seeds`."""
        return f"N = {self.n}" if self.unit == "N" else f"{self.n} {self.unit}"

    def trials(self, seed: int) -> list[Trial]:
        """The mean of one sample; its truth is 2, in bits/dim say."""
        z = np.random.default_rng(seed).standard_normal(self.n)
        values = 2 + 0.3 * z if self.sigma is None else 2 * np.exp(self.sigma * z - self.sigma**2 / 2)
        found = self.estimate(values)
        return [Trial(self.interval, 2.0, found.low, found.high)]


def cases() -> Iterator[Case]:
    """Every case of the study, the slowest ones first."""
    laws = {"equal": (0.0, 1.0), "near": (0.2, 1.1), "far": (0.7, 1.4)}
    for d in sorted(DIMENSIONS, reverse=True):
        for ratio in sorted(RATIOS, reverse=True):
            for name, law in laws.items():
                yield FeatureCase(name, Gaussians(d, *law), ratio, kernel=False)
                yield FeatureCase(name, Gaussians(d, *law), ratio, kernel=True)
    for name, mean in (("classes alike", np.zeros(CLASSES)), ("unequal classes", np.linspace(0, 4, CLASSES))):
        truth = score_truth(tuple(mean.tolist()), 3.0)
        for n in SCORED:
            yield ScoreCase(name, n, tuple(mean.tolist()), 3.0, truth)
    for name, sigma in (("normal", None), ("skewed", 0.5)):
        for n in IMAGES:
            yield MeanCase(name, "bits_per_dim", n, "N", mean_over_images, sigma)
        for n in SEEDS:
            yield MeanCase(name, "mean over seeds", n, "seeds", mean_over_seeds, sigma)


def score_truth(mean: tuple[float, ...], deviation: float) -> float:
    """exp(H(E p) - E H(p)) from a huge sample, whose own error is a hundredth of the intervals' widths."""
    p = softmax(_logits(mean, deviation, _HUGE, derive_seed("coverage truth")), axis=1)
    marginal = p.mean(0)
    return math.exp(float(xlogy(p, p).sum(1).mean() - xlogy(marginal, marginal).sum()))


def _logits(mean: tuple[float, ...], deviation: float, n: int, seed: int) -> Array:
    return np.asarray(mean) + deviation * np.random.default_rng(seed).standard_normal((n, len(mean)))


class Rows:
    """Stands in for a network: an image is the number of its row of features, in four bytes."""

    name = "simulated"

    def __init__(self, values: Array, logits: Array | None) -> None:
        self.values = values  # (N, d)
        self.logits = logits  # (N, K)

    def identity(self) -> Mapping[str, Any]:
        """Nothing: a subject has an extractor of its own."""
        return {}

    def extract(self, images: Tensor, levels: int) -> Features:
        """The rows that the images (B, 1, 1, 4) name."""
        rows = images.flatten(1).contiguous().numpy().view("<u4")[:, 0]
        return Features(self.values[rows], None if self.logits is None else self.logits[rows])


def subject_of(real: Array, generated: Array, logits: Array | None, seed: int) -> Subject:
    """What a metric is shown where the features themselves are drawn.

    Args:
        real: (N, d).
        generated: (M, d).
        logits: (M, K) of the generated ones, for metrics of classes; real are then given the same.
        seed: of the metrics' resampling.
    """
    n, m = len(real), len(generated)
    numbers = torch.from_numpy(np.arange(n + m, dtype="<u4").view(np.uint8).reshape(n + m, 1, 1, 4))
    shape = ImageShape(1, 1, 4)
    values = np.concatenate([real, generated])
    both = None if logits is None else np.concatenate([logits, logits])
    return Subject(
        seed=seed,
        generated=Held(numbers[n:], shape, "samples"),
        reference=Held(numbers[:n], shape, "test images", "test"),
        extractor=Rows(values, both),
    )


def _trial(metric: Metric, truth: float, subject: Subject) -> Trial:
    if metric.unavailable(subject) is not None:
        return Trial(metric.name, truth, None, None)
    found = metric.measure(subject)[0]
    return Trial(metric.name, truth, found.low, found.high)
