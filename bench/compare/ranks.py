"""The ranks that seeds leave possible, and what is not told apart.

Every pair of a board is tested at 95 %. An entry's rank lies between one more than the number of those shown to be
better, and the board's length less those shown to be worse. There is no correction for the number of pairs: with the
two or three seeds that records have, Holm's over the 820 pairs of 41 entries asks for a t of 127 and tells nothing
apart; how many orders chance may make is told beside the board.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from bench.compare.boards import Board, Entry
from bench.gate.quality import ALPHA, Compared, Difference, change_told, difference, grain, interval_told
from bench.record import Measurement
from bench.report.apart import SPEED_TOLERANCE
from bench.report.grouping import SPEED_UNITS, scale_of

MOST = 150
"""Entries that are tested against each other; those behind them stand without a rank."""


@dataclass(frozen=True)
class Place:
    """An entry's place on its board."""

    entry: Entry
    position: int  # by value, from 1
    low: int  # the best rank that it can have
    high: int  # the worst
    ties: tuple[int, ...]  # positions of those that it is not told apart from
    against: str  # its change against the first, with the interval
    how: str


def places(board: Board) -> list[Place]:
    """The entries by value, the best first, each with its set of ranks."""
    sign = -1 if board.entries[0].score.better == "higher" else 1
    entries = sorted(board.entries, key=lambda e: (sign * e.score.value, e.label))
    tested = entries[:MOST]
    pairs = [(i, j) for i in range(len(tested)) for j in range(i + 1, len(tested))]
    ps = [p_other_order(tested[i], tested[j]) for i, j in pairs]
    told = {pair for pair, p in zip(pairs, ps, strict=True) if p is not None and p[0] <= ALPHA}
    wrong = {pair for pair, p in zip(pairs, ps, strict=True) if p is not None and p[1]}
    found = []
    for i, entry in enumerate(tested):
        others = [(min(i, j), max(i, j)) for j in range(len(tested)) if j != i]
        apart = [pair for pair in others if pair in told]
        better = sum((pair[1] == i) != (pair in wrong) for pair in apart)
        ties = tuple((a if b == i else b) + 1 for a, b in others if (a, b) not in told)
        against, how = ("", "") if i == 0 else _against(tested[0], entry)
        found.append(Place(entry, i + 1, 1 + better, len(tested) - (len(apart) - better), ties, against, how))
    late = entries[MOST:]
    return found + [Place(e, MOST + i, 0, 0, (), "", "not tested") for i, e in enumerate(late, start=1)]


def p_other_order(first: Entry, second: Entry) -> tuple[float, bool] | None:
    """One-sided p of the order that the difference shows, and whether that is the second before the first.

    None where nothing tells: no seeds or intervals to go by.
    """
    shared = _shared(first, second)
    if shared:
        d = _difference(first, second, shared)
        p = d.p_better if d.worse < 0 else d.p_worse
        return None if p is None else (p, d.worse < 0)
    return _unpaired(list(first.seeds.values()), list(second.seeds.values()), _tolerance(first))


def _shared(first: Entry, second: Entry) -> list[int]:
    """The seeds to pair by; none where one alone is shared though both have more, which unpaired tell more."""
    shared = sorted(first.seeds.keys() & second.seeds.keys())
    return [] if len(shared) == 1 and min(len(first.seeds), len(second.seeds)) > 1 else shared


def _tolerance(entry: Entry) -> float:
    return SPEED_TOLERANCE if entry.score.unit in SPEED_UNITS else 0.0


def _difference(first: Entry, second: Entry, shared: Sequence[int]) -> Difference:
    sides = [[e.seeds[seed] for seed in shared] for e in (first, second)]
    found = difference(Compared(first.score.metric, sides[0], sides[1]))
    return replace(found, tolerance=_tolerance(first))


def _unpaired(
    first: Sequence[Measurement], second: Sequence[Measurement], tolerance: float
) -> tuple[float, bool] | None:
    """Welch's t of entries that seeds do not pair, on logarithms where reports take their intervals so."""
    if min(len(first), len(second)) < 2:
        return None
    scale = scale_of([*first, *second])
    sides = [np.array([math.log(m.value) if scale == "log" else m.value for m in side]) for side in (first, second)]
    least = grain([*first, *second], scale) ** 2 / 2
    errors = [max(float(side.var(ddof=1)), least) / len(side) for side in sides]
    sign = -1.0 if first[0].better == "higher" else 1.0
    worse = sign * float(sides[1].mean() - sides[0].mean())
    beyond = abs(worse) - tolerance
    if sum(errors) == 0:
        return (0.0 if beyond > 0 else 1.0), worse < 0
    freedom = sum(errors) ** 2 / sum(e**2 / (len(s) - 1) for e, s in zip(errors, sides, strict=True))
    return float(stdtr(freedom, -beyond / math.sqrt(sum(errors)))), worse < 0


def _against(first: Entry, entry: Entry) -> tuple[str, str]:
    shared = _shared(first, entry)
    if not shared:
        return "", "not paired by seeds"
    d = _difference(first, entry, shared)
    if d.kind == "equal":
        return "0", "equal"
    text = change_told(d, d.worse)
    interval = interval_told(d)
    how = f"{len(shared)} seed{'s' * (len(shared) > 1)}" + ("" if d.kind == "paired t" else f", {d.kind}")
    return text, f"[{interval}] {how}" if interval else how
