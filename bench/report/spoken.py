"""What a mark of a figure tells when a reader rests on it: the row's name, its numbers and their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.drawn import Mark
from bench.report.joined import Point
from bench.report.marks import odd_rows
from bench.report.numbers import interval_text, score_text
from bench.report.rows import Row, Sheet, base
from bench.report.tables import NAMES


def numbers_of(row: Row, sheet: Sheet) -> list[tuple[str, str, str]]:
    """(name, value, interval) of FD, coverage, recall, speed and latency, as far as the data set has them."""
    told = (
        ("FD", sheet.quality),
        ("coverage", sheet.coverage),
        ("recall", sheet.recall),
        ("images/s", sheet.speed),
        ("latency", sheet.latency),
    )
    found = []
    for name, metric in told:
        score = row.scores.get(metric or "")
        found.append((name, "–" if score is None else score_text(score), "" if score is None else interval_text(score)))
    return found


def marks_of(rows: Sequence[Row], sheet: Sheet) -> list[Mark]:
    """Each row in words, what was measured of it unlike of most, and the block that tells more."""
    odd = odd_rows(rows, (sheet.quality, sheet.coverage, sheet.recall, sheet.speed, sheet.latency))
    made = []
    for row in rows:
        lines = [_with_interval(name, value, span) for name, value, span in numbers_of(row, sheet)]
        lines += [_seeds(len(set(row.seeds))), *odd.get(id(row), ())]
        made.append(Mark(row.label, tuple(lines), sheet.blocks.get(row.model.name, "")))
    return made


def mark_at(point: Point, place: str, sheet: Sheet) -> Mark:
    """A point of a line: its score as it is drawn, of the seeds that the line has in common, and where it stands.

    place: such as `20 network calls an image`.
    """
    score, row = point.score, point.row
    name = NAMES.get(base(score.metric), base(score.metric).replace("_", " "))
    lines = _with_interval(name, score_text(score), interval_text(score)), place, _seeds(score.seeds)
    odd = ("of other seeds than its line",) if point.odd else ()
    return Mark(row.label, (*lines, *odd), sheet.blocks.get(row.model.name, ""))


def _with_interval(name: str, value: str, span: str) -> str:
    return f"{name} {value}" + (f" ({span})" if span else "")


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"
