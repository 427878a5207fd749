"""The quality metric by sampler and network calls, laid out as the published table is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench.report.joined import Point, joined
from bench.report.numbers import interval_text, number
from bench.report.rows import Sheet
from bench.report.steps import lines, usual
from bench.report.tables import Column, Datum, Line, Table, hint


def steps_table(sheet: Sheet) -> Table | None:
    """One line a sampler, one column a number of network calls; None where there are not at least two of these."""
    alike = {id(row) for row in usual(sheet.rows, sheet.quality)}
    if sheet.quality is None:
        return None
    held = {}
    for line in lines(sheet):
        fair = [(x, row) for x, row in line.rows if id(row) in alike]
        if fair:
            held[line.label] = {point.x: point for point in joined(fair, sheet.quality)}
    calls = sorted({x for points in held.values() for x in points})
    if len(calls) < 2 or len(calls) > 20:
        return None
    best = {x: _best([points[x] for points in held.values() if x in points]) for x in calls}
    table_lines = []
    for label, points in held.items():
        data = [Datum(label, label.lower(), _of_seeds(points.values()))]
        data += [_datum(points.get(x), best[x]) for x in calls]
        table_lines.append(Line(tuple(data), family=next(iter(points.values())).row.model.family))
    columns = (Column("sampler", numeric=False), *(Column(f"{x:g} calls", "↓") for x in calls))
    intro = (
        f"{sheet.quality} by the number of network calls an image; in small the interval, the lowest of each column in "
        "bold, of those with as many seeds as most. A line's numbers are of the same seeds; one that is not says how "
        "many it has, and is to be compared with its own column alone. eta 1 is DDPM's posterior variance, sigma-hat "
        "its larger one."
    )
    return Table("steps", "Measured: quality over steps", intro, columns, tuple(table_lines))


def _best(points: list[Point]) -> float | None:
    """The lowest of a column, of those with the number of seeds that most have."""
    counts = Counter(point.score.seeds for point in points)
    most = max(counts, key=lambda n: (counts[n], n), default=0)
    return min((point.score.value for point in points if point.score.seeds == most), default=None)


def _of_seeds(points: Iterable[Point]) -> str:
    """What seeds a line's numbers are of, where its rows have more."""
    fewer = [p for p in points if not p.odd and p.score.seeds < len(p.row.seeds)]
    return f"{fewer[0].score.seeds} seeds in common" if fewer else ""


def _datum(point: Point | None, best: float | None) -> Datum:
    if point is None:
        return Datum("–")
    detail = ", ".join(part for part in (interval_text(point.score), point.told) if part)
    value = point.score.value
    return Datum(number(value), value, detail, best=value == best, hint=hint(point.score))
