"""The trilemma's axes: quality, coverage and speed, each between endpoints measured in the same run.

quality = (ln FD_ceiling - ln FD) / (ln FD_ceiling - ln FD_floor); the ceiling is the model of independent pixels,
the floor real images against the test split. coverage = coverage / coverage_floor. speed = (ln r - ln r_slowest) /
(ln r_fastest - ln r_slowest) with r in images/s over the run's models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.report.numbers import number
from bench.report.rows import Row, Sheet
from bench.report.source import CEILING, FLOOR


class Axes(NamedTuple):
    """A row on the three axes; 0 and 1 are the endpoints, values beyond them are kept. None: not measured."""

    quality: float | None
    coverage: float | None
    speed: float | None

    @property
    def complete(self) -> bool:
        """Whether all three are known."""
        return None not in self

    def clipped(self) -> tuple[float, float, float]:
        """All three within [0, 1] for drawing, the unknown at 0."""
        quality, coverage, speed = (0.0 if v is None else min(1.0, max(0.0, v)) for v in self)
        return quality, coverage, speed


@dataclass(frozen=True)
class Endpoints:
    """Where zero and one lie, as measured; None where the run has no such measurement."""

    fd_floor: float | None
    fd_ceiling: float | None
    coverage_floor: float | None
    slowest: float | None  # images/s
    fastest: float | None
    slowest_name: str = ""
    fastest_name: str = ""

    def missing(self) -> list[str]:
        """What keeps an axis from being drawn, in words."""
        told: list[str] = []
        if self.fd_floor is None or self.fd_ceiling is None:
            lacking = [n for n, v in ((FLOOR, self.fd_floor), (CEILING, self.fd_ceiling)) if v is None]
            told.append(f"no quality axis: the run has no FD of {' and '.join(lacking)}")
        elif self.fd_floor >= self.fd_ceiling:
            told.append("no quality axis: the floor's FD is not below the ceiling's")
        if self.coverage_floor is None:
            told.append(f"no coverage axis: the run has no coverage of {FLOOR}")
        if self.slowest is None or self.slowest == self.fastest:
            told.append("no speed axis: fewer than two speeds were measured")
        return told


def endpoints(sheet: Sheet) -> Endpoints:
    """The measured endpoints of a data set; FD, coverage and speeds that are not positive are none."""
    models = [row for row in sheet.models if not row.model.is_oracle]
    speeds = [(v, row.short) for row in models if (v := _positive(row, sheet.speed)) is not None]
    slowest, fastest = (min(speeds), max(speeds)) if speeds else ((None, ""), (None, ""))
    return Endpoints(
        fd_floor=_positive(sheet.floor, sheet.quality),
        fd_ceiling=_positive(sheet.ceiling, sheet.quality),
        coverage_floor=_positive(sheet.floor, sheet.coverage),
        slowest=slowest[0],
        fastest=fastest[0],
        slowest_name=slowest[1],
        fastest_name=fastest[1],
    )


def axes(row: Row, sheet: Sheet, ends: Endpoints) -> Axes:
    """A row between the endpoints."""
    covered = row.value(sheet.coverage)
    sane = ends.fd_floor is not None and ends.fd_ceiling is not None and ends.fd_floor < ends.fd_ceiling
    return Axes(
        quality=between_logs(_positive(row, sheet.quality), ends.fd_ceiling, ends.fd_floor) if sane else None,
        coverage=None if covered is None or ends.coverage_floor is None else covered / ends.coverage_floor,
        speed=between_logs(_positive(row, sheet.speed), ends.slowest, ends.fastest),
    )


def between_logs(value: float | None, zero: float | None, one: float | None) -> float | None:
    """Where ln(value) lies between ln(zero) and ln(one); None if one is unknown or the endpoints coincide."""
    if value is None or zero is None or one is None or zero == one:
        return None
    return (math.log(value) - math.log(zero)) / (math.log(one) - math.log(zero))


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, loss) that no other betters in one and equals in the other, by cost.

    Of equal points all are kept.
    """
    front: list[int] = []
    lowest = math.inf
    order = sorted(range(len(points)), key=lambda i: points[i])
    for i in order:
        cost, loss = points[i]
        if loss < lowest or (front and points[front[-1]] == (cost, loss)):
            front.append(i)
            lowest = loss
    return front


def axes_told(sheet: Sheet) -> bool:
    """Whether there is anything to compare on the axes: not where the only models are exact denoisers."""
    others = [row for row in sheet.rows if not row.model.is_reference]
    return not others or any(not row.model.is_oracle for row in others)


def drawable(rows: Iterable[Row], sheet: Sheet, ends: Endpoints) -> list[tuple[Row, Axes]]:
    """The rows that stand in the trilemma picture: one a sampler, with at least one axis known.

    Exact denoisers have no place in it, and where there is nothing but them and the references there is no picture.
    """
    held = [row for row in rows if row.shown and not row.model.is_oracle]
    placed = [(row, axes(row, sheet, ends)) for row in held] if axes_told(sheet) else []
    return [(row, at) for row, at in placed if any(v is not None for v in at)]


def formulas(ends: Endpoints) -> list[str]:
    """The three axes' formulas with the endpoints as measured, one text each, `axis: formula`."""
    told = []
    if ends.fd_floor is not None and ends.fd_ceiling is not None and ends.fd_floor < ends.fd_ceiling:
        top, low = number(ends.fd_ceiling), number(ends.fd_floor)
        told.append(
            f"quality: (log {top} − log FD) / (log {top} − log {low}), from independent pixels (0) to real images (1)"
        )
    if ends.coverage_floor is not None:
        told.append(f"coverage: coverage / {number(ends.coverage_floor)}, from none (0) to real images (1)")
    if ends.slowest is not None and ends.fastest is not None and ends.slowest != ends.fastest:
        slow, fast = number(ends.slowest), number(ends.fastest)
        told.append(
            f"speed: (log r − log {slow}) / (log {fast} − log {slow}) with r in images/s, "
            f"from {ends.slowest_name} (0) to {ends.fastest_name} (1)"
        )
    return told


def _positive(row: Row | None, metric: str | None) -> float | None:
    value = None if row is None else row.value(metric)
    return value if value is not None and value > 0 else None
