"""The exact Fréchet distance of every sampler and number of steps, free of sampling noise, as a table."""

from __future__ import annotations

from collections import defaultdict

from bench.report.names import SAMPLERS, way
from bench.report.numbers import number
from bench.report.rows import EXACT, Row, Score, Sheet, base
from bench.report.tables import Column, Datum, Line, Table, hint


def exact_table(sheet: Sheet) -> Table | None:
    """One line a model and way to draw, one column a number of steps; None where no row has the metric."""
    curves = exact_curves(sheet)
    if not curves:
        return None
    steps = sorted({s for curve in curves.values() for s in curve})
    lowest = {s: min(curve[s].value for curve in curves.values() if s in curve) for s in steps}
    lines = []
    for label, curve in curves.items():
        data = [Datum(label, label.lower())]
        for s in steps:
            score = curve.get(s)
            best = score is not None and len(curves) > 1 and score.value == lowest[s]
            data.append(Datum("–") if score is None else _datum(score, best))
        lines.append(Line(tuple(data), family="diffusion"))
    intro = (
        "What each sampler makes of a perfect network: the Fréchet distance between the Gaussian fitted to the train "
        "images and the samples of its exact denoiser, pixels in [-1, 1], before rounding. Nothing is drawn for it, so "
        "it has neither noise nor bias. S counts steps: Heun calls the network 2 S - 1 times, the PF-ODE 4 S + 1 times."
    )
    columns = (Column("sampler", numeric=False), *(Column(f"S={s}") for s in steps))
    return Table("exact", "Exact Fréchet distance by sampler and steps", intro, columns, tuple(lines))


def exact_curves(sheet: Sheet) -> dict[str, dict[int, Score]]:
    """By way to draw, the exact distance at each number of steps; the model is named where there are several."""
    rows = [row for row in sheet.rows if row.draw is not None and row.draw.steps is not None and _score(row)]
    rows.sort(key=place)
    several = len({row.title for row in rows}) > 1
    curves: dict[str, dict[int, Score]] = defaultdict(dict)
    for row in rows:
        score = _score(row)
        assert row.draw is not None
        assert row.draw.steps is not None
        assert score is not None
        prefix = f"{row.title}: " if several else ""
        curves[prefix + way(row.draw)][row.draw.steps] = score
    return dict(curves)


def place(row: Row) -> tuple[int, bool]:
    """For sorting: samplers in their order, each first with its timesteps evenly spaced."""
    assert row.draw is not None
    names = list(SAMPLERS)
    return names.index(row.draw.sampler) if row.draw.sampler in names else len(names), row.draw.spacing != "uniform"


def _score(row: Row) -> Score | None:
    return next((row.scores[metric] for metric in row.scores if base(metric) == EXACT), None)


def _datum(score: Score, best: bool) -> Datum:
    return Datum(number(score.value), score.value, best=best, hint=hint(score))
