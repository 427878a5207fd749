"""One row's metric over another's, by the seeds that both have."""

from __future__ import annotations

import math
from typing import NamedTuple

from bench.report.numbers import number
from bench.report.rows import EXACT, Row, base
from bench.stats import mean_over_seeds

_ROUNDING = 1e-9  # exact numbers nearer to each other than this are equal


class Ratio(NamedTuple):
    """One row's metric over another's: the geometric mean over the seeds that both have, with its interval.

    Two or more seeds: Student's t on the logarithms, at 95 %. One: from the two scores' own intervals, if they have
    some. Exact numbers have no interval and need none.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def above(self) -> bool:
        """Whether it is above 1 beyond doubt."""
        return self.low is not None and self.low > 1 + _ROUNDING

    @property
    def below(self) -> bool:
        """Whether it is below 1 beyond doubt."""
        return self.high is not None and self.high < 1 - _ROUNDING

    @property
    def unclear(self) -> bool:
        """Whether nothing tells the two apart."""
        return not self.above and not self.below

    @property
    def inverse(self) -> Ratio:
        """The other row's metric over this one's."""
        low, high = (None if bound is None else 1 / bound for bound in (self.high, self.low))
        return Ratio(1 / self.value, low, high, self.seeds)

    def text(self, most: int | None = None) -> str:
        """`1.22× [1.10 – 1.35]`; most: seeds that such a ratio has elsewhere, to tell where it has fewer."""
        told = []
        if self.low is not None and self.high is not None and self.low < self.high:
            told.append(f"{number(self.low)} – {number(self.high)}")
        if most is not None and self.seeds < most:
            told.append(f"{self.seeds} seed{'s' * (self.seeds > 1)}")
        return f"{number(self.value)}×" + (f" [{', '.join(told)}]" if told else "")


def ratio(row: Row, other: Row, metric: str) -> Ratio | None:
    """row's metric over other's, by the seeds that both have.

    None where they share none, a value is not above 0, or the two were measured under different protocols.
    """
    if metric not in row.scores or metric not in other.scores:
        return None
    if row.scores[metric].protocol != other.scores[metric].protocol:
        return None
    ours, theirs = by_seed(row, metric), by_seed(other, metric)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds or min(*(ours[s] for s in seeds), *(theirs[s] for s in seeds), math.inf) <= 0:
        return None
    logs = [math.log(ours[s] / theirs[s]) for s in seeds]
    mean = mean_over_seeds(logs)
    value = math.exp(mean.value)
    if base(metric) == EXACT:
        return Ratio(value, value, value, len(seeds))
    if len(seeds) == 1:
        return Ratio(value, *_own(row, other, metric, seeds[0]), 1)
    assert mean.low is not None
    assert mean.high is not None
    return Ratio(value, math.exp(mean.low), math.exp(mean.high), len(seeds))


def by_seed(row: Row, metric: str) -> dict[int, float]:
    """The metric of each seed's draw."""
    return {r.cell.seed: m.value for r in row.records for m in r.measured if m.metric == metric}


def _own(row: Row, other: Row, metric: str, seed: int) -> tuple[float | None, float | None]:
    bounds = []
    for held in (row, other):
        found = [m for r in held.records if r.cell.seed == seed for m in r.measured if m.metric == metric]
        low, high = found[0].low, found[0].high
        if low is None or high is None or low <= 0:
            return None, None
        bounds.append((low, high))
    return bounds[0][0] / bounds[1][1], bounds[0][1] / bounds[1][0]
