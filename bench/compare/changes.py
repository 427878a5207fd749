"""What changed from one results folder to others, and whether it is beyond noise.

The statistics are the gate's (`bench.gate.quality`): Student's t of paired differences, one a seed, with Holm's
correction over all that is compared. Unlike there no change is too small to be told: the tolerance is zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from baselines.errors import UserError
from bench.compare.folders import Folder, open_folders
from bench.compare.labels import labels
from bench.compare.meeting import Key, Meeting, Pairs, meet
from bench.gate.quality import Compared, Difference, change_told, difference, holm, interval_told
from bench.gate.rule import change_text

BEYOND = ("worse", "better")
"""Verdicts that hold beyond noise."""
ORDER = (*BEYOND, "changed", "perhaps worse", "perhaps better", "cannot tell", "within noise", "trend", "equal", "-")
"""All verdicts, in the order in which lines are shown; `-`: these two folders do not share it."""
QUIET = ("within noise", "equal", "-", "cannot tell")


@dataclass(frozen=True)
class Change:
    """One metric of one cell in one folder against the first."""

    verdict: str
    base: float
    head: float
    unit: str
    text: str = ""  # by how much
    sure: str = ""  # interval, seeds, p
    size: float = 0.0  # for sorting; above 0 is worse


@dataclass(frozen=True)
class Comparison:
    """Folders against the first of them."""

    folders: tuple[Folder, ...]
    meetings: tuple[Meeting, ...]  # of the first with each other
    changes: tuple[Mapping[Key, Change], ...]  # likewise
    names: Mapping[Key, tuple[str, str]]  # (cell, metric)
    judged: int  # scores that the correction counts
    across: tuple[str, ...] = ()  # what paired cells may differ in

    def counts(self, i: int) -> Counter[str]:
        """How many scores of the i-th meeting have each verdict."""
        met = self.meetings[i]
        return Counter(c.verdict for k, c in self.changes[i].items() if met.pairs[k].treatment == "score")


def compare(paths: Sequence[Path], select: str = "", every: bool = False, across: Collection[str] = ()) -> Comparison:
    """Compare results folders with the first of them.

    Args:
        paths: two folders or more.
        select: only rows whose name, `cell: metric`, holds this.
        every: every metric that has a better side, not only likelihood, FD, coverage, precision and recall.
        across: of ACROSS, what paired cells may differ in.

    Raises:
        UserError: if there are fewer than two folders, one cannot be read, or nothing can be compared.
    """
    if len(paths) < 2:
        raise UserError(f"compare: expected two results folders or more, got {len(paths)}")
    folders = open_folders(paths)
    cells = labels(r.cell for folder in folders for r in folder.source.records)
    meetings = [meet(folders[0], head, cells, select, every, across) for head in folders[1:]]
    if not any(met.pairs or met.failed for met in meetings):
        raise UserError(_nothing(folders, meetings, select))
    names = {key: (p.label, key[1]) for met in meetings for key, p in met.pairs.items()}
    scores = [
        (i, key, difference(Compared(names[key][0], p.base, p.head)))
        for i, met in enumerate(meetings)
        for key, p in met.pairs.items()
        if p.treatment == "score"
    ]
    found = [replace(d, tolerance=0.0) for _, _, d in scores]
    worse, better = holm([d.p_worse for d in found]), holm([d.p_better for d in found])
    changes: list[dict[Key, Change]] = [{} for _ in meetings]
    for (i, key, _), d, is_worse, is_better in zip(scores, found, worse, better, strict=True):
        changes[i][key] = _score(d, is_worse, is_better)
    for i, met in enumerate(meetings):
        for key, p in met.pairs.items():
            if p.treatment != "score":
                changes[i][key] = _counter(p) if p.treatment == "counter" else _speed(p)
    return Comparison(tuple(folders), tuple(meetings), tuple(changes), names, len(found), tuple(across))


def _nothing(folders: Sequence[Folder], meetings: Sequence[Meeting], select: str) -> str:
    whose = f" whose name holds {select!r}" if select else ""
    said = [f"{metric}: {why}" for met in meetings for metric, why in met.refused]
    near = [f"{alone.label}: {alone.why}" for met in meetings for alone in met.alone if alone.why]
    told = "; ".join((said or near)[:2])
    hint = " (--across new-settings, config or budget pairs cells that differ in them)" if near and not said else ""
    names = " and ".join(folder.name for folder in folders)
    return f"compare: expected cells{whose} that {names} have in common, got none that can be compared" + (
        f"; {told}{hint}" if told else ""
    )


def _score(d: Difference, is_worse: bool, is_better: bool) -> Change:
    bounds = d.low_high
    if d.kind == "equal":
        return Change("equal", d.base, d.head, d.unit, "", f"{_seeds(d.seeds)}")
    change = change_told(d, d.worse) if d.worse else "0"
    if bounds is None:
        return Change("cannot tell", d.base, d.head, d.unit, change, "1 seed, no interval of its own", d.worse)
    p = min(p for p in (d.p_worse, d.p_better) if p is not None)
    how = "" if d.kind == "paired t" else ", its own intervals"
    sure = f"[{interval_told(d)}], {_seeds(d.seeds)}{how}, p {p:.2g}"
    verdict = "within noise"
    if is_worse or is_better:
        verdict = "worse" if is_worse else "better"
    elif bounds[0] > 0 or bounds[1] < 0:
        verdict = "perhaps worse" if bounds[0] > 0 else "perhaps better"
    return Change(verdict, d.base, d.head, d.unit, change, sure, d.worse)


def _counter(p: Pairs) -> Change:
    """Counted and not sampled: any difference is one."""
    base, head = (float(np.mean([m.value for m in side])) for side in (p.base, p.head))
    same = all(a.value == b.value for a, b in zip(p.base, p.head, strict=True))
    unit = p.base[0].unit
    return Change("equal" if same else "changed", base, head, unit, change_text(base, head), "counted", head - base)


def _speed(p: Pairs) -> Change:
    """The geometric mean of head over base; two runs are two moments of a machine, so it is never judged."""
    sides = [np.array([m.value for m in side], np.float64) for side in (p.base, p.head)]
    base, head = (float(side.mean()) for side in sides)
    if min(side.min() for side in sides) <= 0:
        return Change("trend", base, head, p.base[0].unit, f"{head - base:+.3g}", _seeds(len(sides[0])))
    log = float(np.mean(np.log(sides[1]) - np.log(sides[0])))
    sign = -1 if p.base[0].better == "higher" else 1
    return Change("trend", base, head, p.base[0].unit, f"{math.exp(log):.3g}×", _seeds(len(sides[0])), sign * log)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"
