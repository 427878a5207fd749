"""What a mark of a figure tells when a reader rests on it: the row's name, its numbers and their intervals."""

from __future__ import annotations

from bench.report.drawn import Mark
from bench.report.numbers import interval_text, score_text
from bench.report.rows import Row, Sheet


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


def mark_of(row: Row, sheet: Sheet) -> Mark:
    """The row in words, and the block that tells more."""
    lines = [f"{name} {value}" + (f" ({span})" if span else "") for name, value, span in numbers_of(row, sheet)]
    seeds = len(set(row.seeds))
    return Mark(row.label, (*lines, f"{seeds} seed{'s' * (seeds != 1)}"), sheet.blocks.get(row.model.name, ""))
