"""Precision, recall, density and coverage: which samples fall into the k-nearest-neighbour balls of real images.

Precision, recall: Kynkäänniemi et al. 2019, arXiv:1904.06991 (k = 3). Density, coverage: Naeem et al. 2020,
arXiv:2002.09797 (k = 5). Balls are closed: a point at a ball's very radius is inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope

BLOCK = 1024  # rows of a distance block
PRECISION_K, DENSITY_K = 3, 5
_UNSURE = 1e-9  # below this share of |x|^2 + |y|^2 a squared distance has fewer than four digits left
_ROUNDING = 1e-12  # share of |x|^2 + |y|^2 by which a distance from an inner product may be off


class PrecisionRecall(NamedTuple):
    """Both in [0, 1]."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density is at least 0 and 1 on average for equal distributions; coverage is in [0, 1]."""

    density: float
    coverage: float


def precision_recall(*, real: Array, generated: Array, k: int = PRECISION_K, block: int = BLOCK) -> PrecisionRecall:
    """Share of samples in the union of the real images' balls, and the reverse.

    Args:
        real: (N, d), N above k.
        generated: (M, d), M above k.
        k: which neighbour a ball reaches to.
        block: rows handled at a time; changes memory, not the value.

    Raises:
        ValueError: if the shapes do not fit.
    """
    x, y = _prepared(real, generated, k)
    around_real, around_generated = radii(x, (k,), block)[k], radii(y, (k,), block)[k]
    of_generated, of_real = _Hits(len(y), len(x)), _Hits(len(y), len(x))
    for rows, near in _distances(y, x, block):
        of_generated.add(rows, near.within(around_real))
        of_real.add(rows, near.within(around_generated[rows, None]))
    return PrecisionRecall(float((of_generated.of_row > 0).mean()), float((of_real.of_column > 0).mean()))


def density_coverage(*, real: Array, generated: Array, k: int = DENSITY_K, block: int = BLOCK) -> DensityCoverage:
    """Mean number of real balls around a sample over k, and the share of real balls that hold a sample.

    Arguments and errors as in `precision_recall`; generated may have any number of rows.
    """
    x, y = _prepared(real, generated, k, both=False)
    around_real = radii(x, (k,), block)[k]
    hits = _Hits(len(y), len(x))
    for rows, near in _distances(y, x, block):
        hits.add(rows, near.within(around_real))
    return DensityCoverage(float(hits.of_row.mean()) / k, float((hits.of_column > 0).mean()))


def all_four(*, real: Array, generated: Array, block: int = BLOCK) -> tuple[PrecisionRecall, DensityCoverage]:
    """Both pairs at their usual k, from distances that are computed once."""
    x, y = _prepared(real, generated, DENSITY_K)
    around_real = radii(x, (PRECISION_K, DENSITY_K), block)
    around_generated = radii(y, (PRECISION_K,), block)[PRECISION_K]
    precise, recalled, dense = (_Hits(len(y), len(x)) for _ in range(3))
    for rows, near in _distances(y, x, block):
        precise.add(rows, near.within(around_real[PRECISION_K]))
        recalled.add(rows, near.within(around_generated[rows, None]))
        dense.add(rows, near.within(around_real[DENSITY_K]))
    return (
        PrecisionRecall(float((precise.of_row > 0).mean()), float((recalled.of_column > 0).mean())),
        DensityCoverage(float(dense.of_row.mean()) / DENSITY_K, float((dense.of_column > 0).mean())),
    )


def expected_coverage(n: int, m: int, k: int) -> float:
    """E[coverage] where n real and m generated points are of one distribution: 1 - prod (n - i) / (n + m - i)."""
    miss = 1.0
    for i in range(1, k + 1):
        miss *= (n - i) / (n + m - i)
    return 1 - miss


def radii(x: Array, ks: Sequence[int], block: int = BLOCK) -> dict[int, Array]:
    """Squared distances (N,) from each of N points to its k-th nearest other point, for each k.

    x: centred and scaled, see `_prepared`.
    """
    nearest = _nearest(x, max(ks), block)
    norms = (x**2).sum(1)
    found = {}
    for k in ks:
        neighbour = nearest[:, k - 1].copy()
        squared = np.concatenate([_exact(x[s], x[neighbour[s]]) for s in _slices(len(x), block)])
        # a neighbour so near that the inner product's rounding could have picked another is sought again
        for row in np.flatnonzero(squared <= _UNSURE * (norms + norms[neighbour])):
            exact = _exact(x[row], x)
            exact[row] = np.inf
            squared[row] = np.partition(exact, k - 1)[k - 1]
        found[k] = squared
    return found


def _nearest(x: Array, k: int, block: int) -> NDArray[np.int64]:
    """(N, k) the nearest other points, nearest first; each block of distances serves its rows and its columns."""
    n, norms = len(x), (x**2).sum(1)
    best, index = np.full((n, k), np.inf), np.zeros((n, k), np.int64)
    for rows in _slices(n, block):
        for columns in _slices(n, block):
            if columns.start < rows.start:
                continue
            squared = _squared(x[rows], x[columns], norms[rows], norms[columns])
            if rows.start == columns.start:
                np.fill_diagonal(squared, np.inf)  # itself, by index: a duplicate is a neighbour
            else:
                _keep_nearest(best[columns], index[columns], squared.T, rows.start)
            _keep_nearest(best[rows], index[rows], squared, columns.start)
    order = np.argsort(best, axis=1, kind="stable")
    return np.take_along_axis(index, order, 1)


def _keep_nearest(best: Array, index: NDArray[np.int64], squared: Array, first: int) -> None:
    """Put into (B, k) `best` and `index`, in place, what of (B, C) distances to points first, ... is nearer."""
    k = best.shape[1]
    near = np.argpartition(squared, k - 1, axis=1)[:, :k] if squared.shape[1] > k else _all_columns(squared)
    both = np.concatenate([best, np.take_along_axis(squared, near, 1)], 1)
    which = np.concatenate([index, near + first], 1)
    kept = np.argpartition(both, k - 1, axis=1)[:, :k]
    best[:] = np.take_along_axis(both, kept, 1)
    index[:] = np.take_along_axis(which, kept, 1)


def _all_columns(x: Array) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(x.shape[1]), x.shape)


@dataclass
class _Near:
    """Squared distances (B, N) between a block of points and all others, exact where it matters."""

    points: Array
    others: Array
    squared: Array
    rounding: Array  # (B, N), by how much each may be off

    def within(self, limits: Array) -> NDArray[np.bool_]:
        """(B, N) whether each distance is at most its limit; limits are (N,) or (B, 1)."""
        beyond = self.squared - limits
        inside = beyond <= 0
        # where rounding could decide, decide by the sum of squared differences, which is exact for duplicates
        i, j = np.nonzero(np.abs(beyond, out=beyond) <= self.rounding)
        wide = np.broadcast_to(limits, inside.shape)
        for part in _slices(len(i), BLOCK):
            a, b = i[part], j[part]
            inside[a, b] = _exact(self.points[a], self.others[b]) <= wide[a, b]
        return inside


@dataclass
class _Hits:
    """How often each row (point) and each column (other point) was within the other's reach."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        self.of_row = np.zeros(self.rows, np.int64)
        self.of_column = np.zeros(self.columns, np.int64)

    def add(self, rows: slice, inside: NDArray[np.bool_]) -> None:
        self.of_row[rows] += inside.sum(1)
        self.of_column += inside.sum(0)


def _distances(points: Array, others: Array, block: int) -> Iterator[tuple[slice, _Near]]:
    norms, other_norms = (points**2).sum(1), (others**2).sum(1)
    for rows in _slices(len(points), block):
        squared = _squared(points[rows], others, norms[rows], other_norms)
        yield rows, _Near(points[rows], others, squared, _ROUNDING * (norms[rows, None] + other_norms))


def _slices(n: int, block: int) -> list[slice]:
    return [slice(first, min(first + block, n)) for first in range(0, n, block)]


def _squared(a: Array, b: Array, a_norms: Array, b_norms: Array) -> Array:
    squared = a @ b.T
    squared *= -2
    squared += a_norms[:, None]
    squared += b_norms
    return squared


def _exact(a: Array, b: Array) -> Array:
    distances: Array = ((a - b) ** 2).sum(-1)
    return distances


def _prepared(real: Array, generated: Array, k: int, both: bool = True) -> tuple[Array, Array]:
    """Float64 about the real mean and in units of the largest entry: no offset, no under- or overflow."""
    x, y = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"manifold: expected (N, d) and (M, d), got {x.shape} and {y.shape}")
    if k < 1 or len(x) <= k or len(y) <= (k if both else 0):
        raise ValueError(f"manifold: expected more points than k = {k} >= 1, got {len(x)} real, {len(y)} generated")
    centre = x.mean(0)
    x, y = x - centre, y - centre
    unit = max(float(np.abs(x).max()), float(np.abs(y).max()))
    return (x / unit, y / unit) if unit > 0 else (x, y)


class Manifold:
    """`precision`, `recall`, `density` or `coverage`; the four share their distances."""

    scope: Scope = "draw"
    version = 1

    def __init__(self, name: str, description: str, k: int) -> None:
        self.name = name
        self.description = description
        self.k = k

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken; None if it can."""
        return features.missing(subject, least=self.k + 1)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number."""
        real, generated = features.of_test(subject).values, features.of_samples(subject).values
        value = float(getattr(self._pair(subject, real, generated), self.name))
        return (
            Measurement(
                metric=features.named(subject, self.name),
                value=value,
                unit="",
                better="higher",
                n=len(real) if self.name in ("recall", "coverage") else len(generated),
                scope=self.scope,
                protocol=features.protocol(subject, self.version, k=self.k),
                note=self._note(len(real), len(generated)),
            ),
        )

    def _pair(self, subject: Subject, real: Array, generated: Array) -> PrecisionRecall | DensityCoverage:
        """All four share their distances, where there are images enough for each."""
        dense = self.name in DensityCoverage._fields
        if min(len(real), len(generated)) > DENSITY_K:
            both = features.cached(subject, "manifold", lambda: all_four(real=real, generated=generated))
            return both[dense]
        pair = density_coverage if dense else precision_recall
        return pair(real=real, generated=generated, k=self.k)

    def _note(self, n: int, m: int) -> str:
        if self.name == "coverage":
            return f"equal distributions would reach {expected_coverage(n, m, self.k):.3f} at these numbers of images"
        return "1 on average for equal distributions" if self.name == "density" else ""


PRECISION = Manifold("precision", "Share of samples that lie among the test images, in features", PRECISION_K)
RECALL = Manifold("recall", "Share of test images that lie among the samples, in features", PRECISION_K)
DENSITY = Manifold("density", "How densely samples lie where test images do; 1 is as densely", DENSITY_K)
COVERAGE = Manifold("coverage", "Share of test images with a sample in their neighbourhood", DENSITY_K)
