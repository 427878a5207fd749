"""The trilemma's axes against numbers worked out by hand, and the Pareto front against brute force."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.record import Record
from bench.report.axes import axes, between_logs, endpoints, formulas, pareto
from bench.report.grouping import make_sheet
from bench.report.rows import Sheet
from bench.report.source import open_results
from bench.report.trilemma import triangle

Make = Callable[..., Path]
HAND = {  # FD, coverage, images/s: powers of ten, so that logarithms are whole numbers
    "real": (1.0, 0.8, None),
    "histogram": (100.0, 0.1, 10_000.0),
    "vae": (10.0, 0.4, 100.0),
    "dcgan": (1000.0, 0.9, 1.0),
}


def by_hand(record: Record) -> Record:
    if record.cell.draw is None:
        return record
    fd, coverage, rate = HAND[record.cell.model]
    values = {"fd[digits-cnn]": fd, "coverage[digits-cnn]": coverage, "images_per_s": rate}
    kept = [replace(m, value=values.get(m.metric, m.value)) for m in record.measured]
    return replace(record, measured=tuple(kept))


def sheet_of(folder: Path) -> Sheet:
    source = open_results(folder)
    return make_sheet(source, source.datasets[0])


def test_axes_are_the_formulas_worked_out_by_hand(make_results: Make) -> None:
    sheet = sheet_of(make_results(models=tuple(HAND), seeds=(0,), change=by_hand))
    ends = endpoints(sheet)
    assert (ends.fd_floor, ends.fd_ceiling, ends.coverage_floor) == (1.0, 100.0, 0.8)
    assert (ends.slowest, ends.fastest, ends.slowest_name, ends.fastest_name) == (1.0, 10_000.0, "DCGAN", "Histogram")
    at = {row.model.name: axes(row, sheet, ends) for row in sheet.models}
    # quality: (log 100 - log 10) / (log 100 - log 1) = 1/2; coverage: .4 / .8; speed: (2 - 0) / (4 - 0)
    assert at["vae"] == pytest.approx((0.5, 0.5, 0.5))
    assert at["histogram"] == pytest.approx((0.0, 0.125, 1.0))
    assert at["dcgan"] == pytest.approx((-0.5, 1.125, 0.0))  # worse than the ceiling, more coverage than real images
    assert at["dcgan"].clipped() == (0.0, 1.0, 0.0)
    assert [text.split(":")[0] for text in formulas(ends)] == ["quality", "coverage", "speed"]
    assert "(log 100 − log FD) / (log 100 − log 1.00)" in formulas(ends)[0]


def test_corners_lie_on_three_spokes_a_third_of_a_turn_apart(make_results: Make) -> None:
    sheet = sheet_of(make_results(models=tuple(HAND), seeds=(0,), change=by_hand))
    row = next(r for r in sheet.rows if r.model.name == "vae")
    points = triangle(axes(row, sheet, endpoints(sheet)))
    assert [math.hypot(x, y) for x, y in points] == pytest.approx([0.5, 0.5, 0.5])
    assert points[0] == pytest.approx((0.0, 0.5))
    assert sum(x for x, _ in points) == pytest.approx(0)
    assert sum(y for _, y in points) == pytest.approx(0)


@pytest.mark.parametrize(
    ("models", "axis", "told"),
    [
        (("real", "vae", "dcgan"), "quality", "no FD of histogram"),
        (("histogram", "vae"), "quality", "no FD of real"),
        (("histogram", "vae"), "coverage", "no coverage of real"),
        (("real", "vae"), "speed", "fewer than two speeds"),
    ],
)
def test_an_axis_without_measured_endpoints_is_not_drawn_and_said_so(
    make_results: Make, models: tuple[str, ...], axis: str, told: str
) -> None:
    sheet = sheet_of(make_results(models=models, seeds=(0,)))
    ends = endpoints(sheet)
    assert all(getattr(axes(row, sheet, ends), axis) is None for row in sheet.models)
    assert any(told in text for text in ends.missing())
    assert not any(text.startswith(axis) for text in formulas(ends))


def test_a_floor_that_is_not_below_the_ceiling_gives_no_quality_axis(make_results: Make) -> None:
    def swapped(record: Record) -> Record:
        factor = {"real": 1000.0}.get(record.cell.model, 1.0)
        return replace(record, measured=tuple(replace(m, value=m.value * factor) for m in record.measured))

    sheet = sheet_of(make_results(models=tuple(HAND), seeds=(0,), change=swapped))
    ends = endpoints(sheet)
    assert any("not below" in text for text in ends.missing())
    assert all(axes(row, sheet, ends).quality is None for row in sheet.models)


def test_between_logs_does_not_depend_on_the_unit() -> None:
    assert between_logs(3.0, 2.0, 50.0) == pytest.approx(between_logs(300.0, 200.0, 5000.0))
    assert between_logs(3.0, 2.0, 2.0) is None
    assert between_logs(None, 2.0, 3.0) is None


def test_pareto_front_equals_brute_force() -> None:
    rng = random.Random(0)
    for trial in range(300):
        points = [(float(rng.randint(0, 6)), float(rng.randint(0, 6))) for _ in range(rng.randint(0, 12))]
        best = {
            i for i, (x, y) in enumerate(points) if not any(u <= x and v <= y and (u, v) != (x, y) for u, v in points)
        }
        front = pareto(points)
        assert set(front) == best, (trial, points)
        assert len(front) == len(set(front))
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
