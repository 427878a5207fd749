"""Which rows the seeds tell apart: the rule behind `not separable` in the findings of a report."""

from __future__ import annotations

import math

from bench.record import Measurement
from bench.report.grouping import scale_of
from bench.report.rows import Row
from bench.stats import paired_difference

SPEED_TOLERANCE = math.log(1.1)
"""Two draws are timed at two moments of a machine: speeds nearer to each other than this are not told apart."""


def told_apart(row: Row, other: Row, metric: str, half_width: float | None = None, least: float = 0.0) -> bool:
    """Whether the metric of two rows differs beyond what seeds or intervals leave open.

    By Student's t of the paired differences at 95 %, on logarithms where intervals are, if two seeds or more of their
    draws are shared; else by whether the two scores' intervals have no point in common.

    Args:
        row: a row that has the metric.
        other: likewise.
        metric: its full name.
        half_width: of an interval, for a score that has none.
        least: |log ratio| up to which two positive scores are not told apart, whatever the seeds say.
    """
    first, second = row.scores[metric], other.scores[metric]
    if least and min(first.value, second.value) > 0 and abs(math.log(first.value / second.value)) <= least:
        return False
    ours, theirs = _by_seed(row, metric), _by_seed(other, metric)
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < 2:
        return not first.overlaps(second, half_width)
    log = scale_of([*ours.values(), *theirs.values()]) == "log"
    sides = [[math.log(held[s].value) if log else held[s].value for s in shared] for held in (ours, theirs)]
    found = paired_difference(*sides)
    assert found.low is not None
    assert found.high is not None
    return not found.low <= 0 <= found.high


def _by_seed(row: Row, metric: str) -> dict[int, Measurement]:
    return {r.cell.seed: m for r in row.records for m in r.measured if m.metric == metric}
