"""Points that one line may join: means over the same seeds, the odd ones apart and marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bench.report.grouping import aggregate
from bench.report.ratios import by_seed
from bench.report.rows import Row, Score


class Point(NamedTuple):
    """One row's score at a place; odd: of other seeds than the line's, and so no part of it."""

    x: float
    row: Row
    score: Score
    odd: bool

    @property
    def told(self) -> str:
        """`1 seed`, of an odd point."""
        return f"{self.score.seeds} seed{'s' * (self.score.seeds != 1)}" if self.odd else ""


def joined(rows: Sequence[tuple[float, Row]], metric: str) -> list[Point]:
    """The metric of each row by the seeds that all of them have, if these are two or more.

    Otherwise by the seeds that most of the rows have; those that lack one of these are odd and keep their own.
    """
    held = [frozenset(by_seed(row, metric)) for _, row in rows]
    shared = frozenset.intersection(*held) if held else frozenset[int]()
    if len(set(held)) > 1 and len(shared) < 2:
        found = Counter(held)
        shared = max(found, key=lambda seeds: (found[seeds], len(seeds)))
    return [
        Point(x, row, _over(row, metric, shared) if shared <= seeds else row.scores[metric], not shared <= seeds)
        for (x, row), seeds in zip(rows, held, strict=True)
    ]


def _over(row: Row, metric: str, seeds: frozenset[int]) -> Score:
    """The score over some of its seeds alone."""
    kept = [m for r in row.records if r.cell.seed in seeds for m in r.measured if m.metric == metric]
    return row.scores[metric] if len(kept) == row.scores[metric].seeds or not kept else aggregate(kept)
