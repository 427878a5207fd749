"""Time over network calls: the line through it, the power that it grows with, and whether the machine was steady."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.report.names import SAMPLERS, noise
from bench.report.rows import Row, Sheet
from bench.report.steps import usual

STEADY = 1.2
"""Most by which the times of one network's forward pass differ on a quiet machine."""


class Clock(NamedTuple):
    """Time an image = start + slope * network calls, fitted by relative least squares."""

    title: str
    points: tuple[tuple[float, float], ...]  # (network calls, seconds an image)
    start: float  # seconds
    slope: float  # seconds a call
    worst: float  # the largest distance of a point from the line, as a fraction of its own time
    power: tuple[float, float, float]  # b of time ~ calls^b with its 95 % interval: (b, low, high)
    rows: tuple[Row, ...] = ()  # of each point

    @property
    def samplers(self) -> tuple[str, ...]:
        """Of each point: `DDIM eta 0`, `Heun`."""
        return tuple(map(sampler_of, self.rows))

    @property
    def reach(self) -> tuple[float, float]:
        """The fewest and the most calls."""
        return min(x for x, _ in self.points), max(x for x, _ in self.points)

    @property
    def bent(self) -> float:
        """By which share the time at the most calls may be off what the fewest make one expect, by the power.

        0.05: within 5 %. The bound of the power's interval that is further from 1 is taken.
        """
        few, most = self.reach
        return max(math.exp(abs(bound - 1) * math.log(most / few)) for bound in self.power[1:]) - 1


def clocks(sheet: Sheet) -> list[Clock]:
    """Time over network calls of each trained checkpoint that has three numbers of steps or more."""
    points: dict[str, list[tuple[float, float, Row]]] = defaultdict(list)
    for row in usual(sheet.rows, sheet.speed):
        rate, calls = row.value(sheet.speed), row.value("nfe")
        if row.draw is not None and rate and calls and rate > 0 and calls > 0 and not row.model.is_oracle:
            points[row.title].append((calls, 1 / rate, row))
    found = []
    for title, own in points.items():
        if len({x for x, *_ in own}) > 2:
            own.sort(key=lambda point: (*point[:2], sampler_of(point[2])))
            found.append(fit(title, [(x, y) for x, y, _ in own])._replace(rows=tuple(row for *_, row in own)))
    return found


def sampler_of(row: Row) -> str:
    """`DDIM eta 0`, whatever the steps."""
    assert row.draw is not None
    return f"{SAMPLERS.get(row.draw.sampler, row.draw.sampler)} {noise(row.draw)}".strip()


def fit(title: str, points: Sequence[tuple[float, float]]) -> Clock:
    """The line through (calls, seconds) that makes the sum of squared relative errors least."""
    x, y = (np.array(values) for values in zip(*sorted(points), strict=True))
    design = np.stack([1 / y, x / y], 1)
    start, slope = (float(v) for v in np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0])
    worst = float(np.abs((start + slope * x) / y - 1).max())
    return Clock(title, tuple(sorted(points)), start, slope, worst, _power(x, y))


def _power(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """The slope of log y over log x by least squares, with Student's t interval of 95 %."""
    across, up = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    spread = float(across @ across)
    power = float(across @ up) / spread
    error = math.sqrt(float(((up - power * across) ** 2).sum()) / max(len(x) - 2, 1) / spread)
    half = error * float(special.stdtrit(max(len(x) - 2, 1), 0.975))
    return power, power - half, power + half


def unsteady(sheet: Sheet) -> dict[str, tuple[float, float]]:
    """By checkpoint, the least and the most seconds of a network call beside its draws, where these differ too much."""
    calls_s: dict[str, list[float]] = defaultdict(list)
    for row in sheet.rows:
        limit_s, calls = row.value("limit_s[large]"), row.value("nfe")
        if limit_s is not None and calls and not row.model.is_oracle:
            calls_s[row.title].append(limit_s / calls)
    spans = {title: (min(times), max(times)) for title, times in calls_s.items()}
    return {title: span for title, span in spans.items() if span[1] > STEADY * span[0]}


def pooled_s(sheet: Sheet) -> dict[str, float]:
    """By checkpoint that was timed while the machine was not steady, the median time of a call over its draws."""
    shaky = unsteady(sheet)
    held: dict[str, list[float]] = defaultdict(list)
    for row in usual(sheet.rows, sheet.speed):
        rate, calls = row.value(sheet.speed), row.value("nfe")
        if row.title in shaky and rate and calls:
            held[row.title].append(1 / (rate * calls))
    return {title: median(times) for title, times in held.items()}
