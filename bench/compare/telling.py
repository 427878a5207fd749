"""A comparison of results folders in sentences and tables: for the terminal, a pull request, a page, a report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench.compare.changes import BEYOND, ORDER, QUIET, Comparison, compare
from bench.compare.folders import folders_table
from bench.compare.meeting import Key
from bench.gate.quality import ALPHA
from bench.report.document import Document
from bench.report.marks import Footnotes
from bench.report.numbers import SIGNS, number
from bench.report.parts import Changes
from bench.report.rows import base as family_of
from bench.report.tables import Column, Datum, Line, Table

_MANY = 30  # lines beyond which quiet ones wait until they are asked for
_NEAR = math.log(1.1)  # a trend of speed that is worth a line


def document(found: Comparison) -> Document:
    """The comparison in sentences and tables."""
    names = [folder.name for folder in found.folders]
    tables = [_table(found, name) for name in ("score", "counter", "speed")]
    return Document(
        title=" → ".join(names) if len(names) == 2 else f"{', '.join(names[1:])} against {names[0]}",
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
    return replace(line, more=line.more or dict(line.facets)["verdict"] in QUIET)


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
    rest += (
        [f"{sum(map(len, met.refused.values()))} pairs of scores are refused or on one side alone"]
        if met.refused
        else []
    )
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
    return Line(tuple(data), more=near or all(v in QUIET for v in verdicts), facets=facets)


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
    each = f"{100 * ALPHA:.1f} %"
    meeting = "Cells meet where model, config, budget, data set, draw, N and seed are equal."
    if found.judged:
        yield (
            f"{meeting} Beyond noise: the mean of the paired differences, one a seed, differs from 0 by Student's t "
            f"after Holm's correction for all {found.judged} comparisons, each side at {each}. Perhaps: its own 95 % "
            f"interval excludes 0, which without any change up to {2 * ALPHA * found.judged:.1f} of {found.judged} "
            "would, on average."
        )
        yield (
            "One seed: the measurements' own intervals, which tell of the images drawn and nothing of another "
            "training. A change is the other folder's value against the first's; the verdict says which side is better."
        )
    else:
        yield f"{meeting} No score could be compared."
    for folder in found.folders:
        yield from (f"{folder.name}: {problem}" for problem in folder.source.problems[:5])
        if folder.source.stale:
            yield f"{folder.name}: {len(folder.source.stale)} stale records are left out"
