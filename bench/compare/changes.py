"""What changed from one results folder to others, and whether it is beyond noise.

The statistics are the gate's (`bench.gate.quality`): Student's t of paired differences, one a seed, with Holm's
correction over all that is compared. Unlike there no change is too small to be told: the tolerance is zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from baselines.errors import UserError
from bench.compare.folders import Folder, folders_table, open_folders
from bench.compare.labels import labels
from bench.compare.meeting import Key, Meeting, Pairs, meet
from bench.gate.quality import ALPHA, Compared, Difference, change_told, difference, holm, interval_told
from bench.gate.rule import change_text
from bench.report.document import Document
from bench.report.marks import Footnotes
from bench.report.numbers import SIGNS, number
from bench.report.parts import Changes
from bench.report.rows import base as family_of
from bench.report.tables import Column, Datum, Line, Table

BEYOND = ("worse", "better")
"""Verdicts that hold beyond noise."""
ORDER = (*BEYOND, "changed", "perhaps worse", "perhaps better", "cannot tell", "within noise", "trend", "equal", "-")
"""All verdicts, in the order in which lines are shown; `-`: these two folders do not share it."""
_QUIET = ("within noise", "equal", "-", "cannot tell")
_MANY = 30  # lines beyond which quiet ones wait until they are asked for
_NEAR = math.log(1.1)  # a trend of speed that is worth a line


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
    sides = [[m.value for m in side] for side in (p.base, p.head)]
    base, head = (float(np.mean(side)) for side in sides)
    if min(map(min, sides)) <= 0:
        return Change("trend", base, head, p.base[0].unit, f"{head - base:+.3g}", _seeds(len(sides[0])))
    log = float(np.mean(np.log(sides[1]) - np.log(sides[0])))
    sign = -1 if p.base[0].better == "higher" else 1
    return Change("trend", base, head, p.base[0].unit, f"{math.exp(log):.3g}×", _seeds(len(sides[0])), sign * log)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def document(found: Comparison) -> Document:
    """The comparison in sentences and tables."""
    names = [folder.name for folder in found.folders]
    tables = [_table(found, name) for name in ("score", "counter", "speed")]
    return Document(
        title=f"{names[0]} → {', '.join(names[1:])}"
        if len(names) == 2
        else f"{names[0]} against {', '.join(names[1:])}",
        command="compare",
        headline=tuple(_headline(found)),
        findings=tuple(text for i in range(len(found.meetings)) for text in findings(found, i)),
        tables=tuple(table for table in (*tables, _failed(found), _refused(found)) if table is not None),
        background=tuple(table for table in (_alone(found), folders_table(found.folders)) if table is not None),
        notes=tuple(_notes(found)),
    )


def since(base: Path, head: Path) -> Changes:
    """What changed beyond noise in `head` since `base`, for the report of `head`.

    Raises:
        UserError: if a folder cannot be read, or nothing can be compared.
    """
    found = compare([base, head])
    held = (_table(found, name) for name in ("score", "counter", "speed"))
    tables = [replace(t, lines=tuple(map(_quiet, t.lines))) for t in held if t is not None]
    more = (_failed(found), _refused(found), _alone(found))
    return Changes(
        title=f"What changed since {found.folders[0].name}",
        findings=(*_headline(found), *findings(found, 0)),
        tables=tuple(t for t in (*tables, *more) if t is not None and not all(line.more for line in t.lines)),
        notes=tuple(_notes(found)),
    )


def _quiet(line: Line) -> Line:
    """Shown unasked only if it changed."""
    return replace(line, more=line.more or dict(line.facets)["verdict"] in _QUIET)


def _headline(found: Comparison) -> Iterable[str]:
    for line in folders_table(found.folders).lines:
        name, _, records, _, seeds, commit, device, threads, *_ = (d.text for d in line.data)
        thread = f"{threads} thread{'s' * (threads != '1')}"
        yield f"{name}: {records} records, seeds {seeds}; commit {commit}; {device}, {thread}"


def findings(found: Comparison, i: int) -> list[str]:
    """What the i-th meeting says, in sentences."""
    met, counts = found.meetings[i], found.counts(i)
    head = found.folders[i + 1].name
    told = ", ".join(
        f"{counts[v]} {v}{' beyond noise' if v in BEYOND else ''}" for v in ORDER if counts[v] or v in BEYOND
    )
    sentences = [f"{head}: {sum(counts.values())} scores of {met.cells} cells compared: {told}."]
    for verdict in BEYOND:
        held = sorted(
            ((key, c) for key, c in found.changes[i].items() if c.verdict == verdict), key=lambda kc: -abs(kc[1].size)
        )
        some = "; ".join(f"{found.names[key][0]}: {key[1]} {c.text}" for key, c in held[:5])
        more = f" and {len(held) - 5} more" if len(held) > 5 else ""
        sentences += [f"{verdict.capitalize()} beyond noise in {head}: {some}{more}."] if held else []
    rest = []
    for folder in (found.folders[0].name, head):
        count = sum(alone.folder == folder for alone in met.alone)
        rest += [f"{count} cells or seeds are only in {folder}"] if count else []
    rest += [f"{sum(map(len, met.refused.values()))} pairs of scores are refused"] if met.refused else []
    rest += [f"{met.copies} records are one and the same in both"] if met.copies else []
    return [*sentences, *([f"{'; '.join(rest)}."] if rest else [])]


_TITLES = {
    "score": ("changes", "Scores", ""),
    "counter": ("counters", "Work and size", "Counted, not sampled: any difference is one."),
    "speed": ("speed", "Speed", "Two runs are two moments of a machine: told as trends, never judged."),
}


def _table(found: Comparison, treatment: str) -> Table | None:
    name, title, intro = _TITLES[treatment]
    keys = dict.fromkeys(k for met in found.meetings for k, p in met.pairs.items() if p.treatment == treatment)
    if not keys:
        return None
    notes = Footnotes()
    lines = [_line(found, key, notes) for key in sorted(keys, key=lambda key: _place(found, key))]
    if len(lines) <= _MANY and treatment == "score":
        lines = [replace(line, more=False) for line in lines]
    columns = [Column("Cell", numeric=False), Column("Metric", numeric=False), Column(found.folders[0].name)]
    for folder in found.folders[1:]:
        columns += [Column(folder.name), Column("change", hint=f"{folder.name} against {found.folders[0].name}")]
        columns += [Column("verdict", numeric=False)]
    return Table(name, title, intro, tuple(columns), tuple(lines), tuple(notes.listed()))


def _place(found: Comparison, key: Key) -> tuple[int, float]:
    """What changed most surely and most comes first."""
    held = [changes[key] for changes in found.changes if key in changes]
    return min((ORDER.index(c.verdict), -abs(c.size)) for c in held)


def _line(found: Comparison, key: Key, notes: Footnotes) -> Line:
    cell, metric = found.names[key]
    held = [changes.get(key) for changes in found.changes]
    first = next(c for c in held if c is not None)
    pairs = next(met.pairs[key] for met in found.meetings if key in met.pairs)
    sign = f"{SIGNS[kind]} " if (kind := pairs.base[0].kind) in SIGNS else ""
    mark = notes.letter(pairs.note) if pairs.note else ""
    data = [Datum(cell, cell, mark=mark), Datum(metric, metric), _number(first.base, first.unit, sign)]
    for c in held:
        if c is None:
            data += [Datum("–"), Datum("–"), Datum("–")]
            continue
        verdict = Datum(c.verdict, ORDER.index(c.verdict), best=c.verdict in (*BEYOND, "changed"))
        data += [_number(c.head, c.unit, sign), Datum(c.text or "0", c.size, c.sure), verdict]
    verdicts = [c.verdict for c in held if c is not None]
    near = all(c.verdict == "trend" and abs(c.size) < _NEAR for c in held if c is not None)
    facets = (("verdict", min(verdicts, key=ORDER.index)), ("metric", family_of(metric)))
    return Line(tuple(data), more=near or all(v in _QUIET for v in verdicts), facets=facets)


def _number(value: float, unit: str, sign: str) -> Datum:
    return Datum(sign + number(value, unit if unit in ("s", "B") else "", 4), value)


def _failed(found: Comparison) -> Table | None:
    lines = [
        Line((Datum(label), Datum(found.folders[0].name), Datum(old), Datum(folder.name), Datum(new), Datum(error)))
        for folder, met in zip(found.folders[1:], found.meetings, strict=True)
        for label, old, new, error in met.failed
    ]
    heads = ("Cell", "first", "status", "other", "status", "error")
    columns = tuple(Column(head, numeric=False) for head in heads)
    return Table("failed", "Cells that failed", "", columns, tuple(lines)) if lines else None


def _refused(found: Comparison) -> Table | None:
    """By metric and reason, how many cells; never compared."""
    lines = []
    for folder, met in zip(found.folders[1:], found.meetings, strict=True):
        for (metric, why), cells in met.refused.items():
            some = list(dict.fromkeys(cells))
            told = f"{some[0]} and {len(some) - 1} more" if len(some) > 1 else some[0]
            lines.append(
                Line((Datum(metric), Datum(told), Datum(str(len(cells)), len(cells)), Datum(folder.name), Datum(why)))
            )
    columns = (
        *(Column(head, numeric=False) for head in ("Metric", "cells")),
        *(Column("pairs"), Column("folder", numeric=False), Column("what differs", numeric=False)),
    )
    intro = "Measured under other protocols, or on one side alone: not compared."
    return Table("refused", "Refused", intro, columns, tuple(lines)) if lines else None


def _alone(found: Comparison) -> Table | None:
    held = dict.fromkeys(alone for met in found.meetings for alone in met.alone)
    lines = [
        Line((Datum(a.label, a.label), Datum(a.folder, a.folder), Datum(", ".join(map(str, a.seeds))), Datum(a.why)))
        for a in held
    ]
    columns = tuple(Column(head, numeric=False) for head in ("Cell", "folder", "seeds", "the other side"))
    intro = "Cells, or seeds of cells, without a counterpart."
    return Table("alone", "Only in one", intro, columns, tuple(lines)) if lines else None


def _notes(found: Comparison) -> Iterable[str]:
    if found.across:
        yield f"Cells are paired that differ in {' or '.join(found.across)}: what each differs in is noted beside it."
    yield (
        "Cells meet where model, config, budget, data set, draw, N and seed are equal. Beyond noise: the mean of the "
        "paired differences, one a seed, differs from 0 by Student's t after Holm's correction for all "
        f"{found.judged} comparisons, each side at {ALPHA:.1%}. Perhaps: its own 95 % interval excludes 0, which "
        f"without any change up to {2 * ALPHA * found.judged:.1f} of {found.judged} would, on average."
    )
    yield (
        "One seed: the measurements' own intervals, which tell of the images drawn and nothing of another training. "
        "A change is head against base on the metric's own side: the verdict says which side is better."
    )
    for folder in found.folders:
        yield from (f"{folder.name}: {problem}" for problem in folder.source.problems[:5])
        if folder.source.stale:
            yield f"{folder.name}: {len(folder.source.stale)} stale records are left out"
