"""A block for each model: its paper, structure, settings, curves, samples, all its numbers and its failures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.record import Record
from bench.report.curves import VALIDATION, Curve, loss_names
from bench.report.marks import Footnotes, flat, protocol_marks
from bench.report.names import way
from bench.report.numbers import number
from bench.report.rows import Row, Sheet, base, variant
from bench.report.source import FAMILIES, ModelInfo
from bench.report.structures import structure_of
from bench.report.tables import NAMES, Column, Datum, Line, Table, datum

MOST_COLUMNS = 6
"""Draws whose numbers a block shows beside each other; the tables have the others."""

_WIDE, _HIGH = 220, 56  # of a small curve, CSS pixels
_MOST_POINTS = 60
_MOST_CONFIGS = 12
_MOST_FAILURES = 20


@dataclass(frozen=True)
class Spark:
    """A small curve: one number over the training."""

    title: str
    points: str  # of an SVG polyline
    told: str  # first, last, lowest in words


@dataclass(frozen=True)
class Block:
    """What a report tells of one model on one data set."""

    anchor: str
    title: str
    family: str
    facts: tuple[tuple[str, str], ...]  # (what, text)
    configs: tuple[tuple[str, str], ...]  # (training, settings)
    sparks: tuple[Spark, ...]
    grids: tuple[int, ...]  # which of the section's grids are its own
    strips: tuple[int, ...]  # which of the section's sets of pictures
    numbers: Table
    failures: tuple[tuple[str, str], ...]  # (cell, last line of its error), the first few
    failed: int  # how many failed


def anchors(slug: str, sheet: Sheet) -> dict[str, str]:
    """Model -> the id of its block."""
    names = dict.fromkeys(row.model.name for row in sheet.all)
    return {name: f"{slug}-model-{number}" for number, name in enumerate(names, start=1)}


def blocks_of(
    sheet: Sheet,
    curves: Sequence[tuple[ModelInfo, str, int, Curve]],
    grids: Sequence[str],
    strips: Sequence[str],
    failed: Iterable[tuple[Record, str]],
) -> list[Block]:
    """The blocks of a data set's models, in the order of the rows.

    curves: (model, training, seed, rows). grids: the row of each grid, by its short name. strips: the training of each
    set of pictures. failed: (record, its label) of what did not end well.
    """
    held: dict[str, list[Row]] = {}
    for row in sheet.all:
        held.setdefault(row.model.name, []).append(row)
    metrics = sorted({metric for row in sheet.all for metric in row.scores}, key=_order)
    notes = Footnotes()
    marks = protocol_marks(sheet.all, metrics, notes)
    by_row = {(id(row), metric): marks.get((i, metric), "") for i, row in enumerate(sheet.all) for metric in row.scores}
    lost: dict[str, list[tuple[str, str]]] = {}
    for record, label in failed:
        last = (record.error.strip().splitlines() or ["no error text"])[-1]  # of a traceback the line that says why
        lost.setdefault(record.cell.model, []).append((label, f"{record.status}: {last}"))
    made = []
    for name, rows in held.items():
        own = [(title, seed, curve) for model, title, seed, curve in curves if model.name == name]
        titles = {row.title for row in rows}
        shorts = {row.short for row in rows}
        made.append(
            Block(
                anchor=sheet.blocks[name],
                title=rows[0].model.title,
                family=rows[0].model.family,
                facts=tuple(_facts(rows, loss_names(own[0][2]) if own else ())),
                configs=tuple(_configs(rows)),
                sparks=tuple(_sparks(own)),
                grids=tuple(i for i, short in enumerate(grids) if short in shorts),
                strips=tuple(i for i, title in enumerate(strips) if title in titles),
                numbers=_numbers(rows, metrics, by_row, notes),
                failures=tuple(lost.get(name, ())[:_MOST_FAILURES]),
                failed=len(lost.get(name, ())),
            )
        )
    return made


def _facts(rows: Sequence[Row], losses: Sequence[str]) -> list[tuple[str, str]]:
    model = rows[0].model
    facts = [("family", FAMILIES[model.family]), ("paper", model.source or "not told")]
    if not model.is_reference:
        facts += structure_of(rows, losses).items()
    seeds = sorted({seed for row in rows for seed in row.seeds})
    facts.append(("seeds", ", ".join(map(str, seeds)) or "none"))
    draws = list(dict.fromkeys(way(row.draw, True, True) for row in rows if row.draw is not None))
    if len(draws) > 1:
        facts.append(("draws", f"{len(draws)}: {', '.join(draws[:8])}{', …' if len(draws) > 8 else ''}"))
    return facts


def _configs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Budget and settings of each training."""
    found: dict[str, str] = {}
    for row in rows:
        if row.records and row.title not in found:
            cell = row.records[0].cell
            settings = ", ".join(f"{k}={v}" for k, v in sorted(flat(dict(cell.config)).items()))
            found[row.title] = f"{cell.budget.label()}; {settings}" if settings else cell.budget.label()
    return list(found.items())[:_MOST_CONFIGS]


def _sparks(curves: Sequence[tuple[str, int, Curve]]) -> list[Spark]:
    """One curve a training, lowest seed: its validation bits/dim, else its first loss."""
    first: dict[str, Curve] = {}
    for title, _, curve in curves:
        first.setdefault(title, curve)
    found = []
    for title, curve in list(first.items())[:_MOST_CONFIGS]:
        names = [VALIDATION] if any(VALIDATION in row for row in curve) else loss_names(curve)[:1]
        for name in names:
            spark = _spark(title, name, [(r["images"], r[name]) for r in curve if name in r and "images" in r])
            found += [] if spark is None else [spark]
    return found


def _spark(title: str, name: str, points: list[tuple[float, float]]) -> Spark | None:
    if len(points) < 2:
        return None
    step = math.ceil(len(points) / _MOST_POINTS)
    few = points[::step] if points[-1] in points[::step] else [*points[::step], points[-1]]
    low, high = min(y for _, y in few), max(y for _, y in few)
    left, right = few[0][0], max(few[-1][0], few[0][0] + 1e-9)
    drawn = " ".join(
        f"{_WIDE * (x - left) / (right - left):.1f},{_HIGH - (_HIGH - 4) * (y - low) / ((high - low) or 1) - 2:.1f}"
        for x, y in few
    )
    what = "validation bits/dim" if name == VALIDATION else name
    told = f"{what}: from {number(points[0][1])} to {number(points[-1][1])}, lowest {number(min(y for _, y in points))}"
    return Spark(title, drawn, f"{told}, over {number(points[-1][0])} images")


def _numbers(
    rows: Sequence[Row], metrics: Sequence[str], marks: Mapping[tuple[int, str], str], notes: Footnotes
) -> Table:
    """A line a metric, a column a draw."""
    chosen = sorted(rows, key=lambda row: not row.shown)[:MOST_COLUMNS]
    lines, used = [], set()
    for metric in metrics:
        if not any(metric in row.scores for row in chosen):
            continue
        data = [replace(datum(row, metric, marks.get((id(row), metric), ""), False), hint="") for row in chosen]
        used |= {d.mark for d in data}
        lines.append(Line((Datum(_name(metric), metric), *data)))
    more = len(rows) - len(chosen)
    intro = f"{more} further draws stand in the tables above." if more else ""
    columns = (Column("Metric", numeric=False), *(Column(row.short) for row in chosen))
    return Table(
        "numbers",
        f"All numbers of {rows[0].model.title}",
        intro,
        columns,
        tuple(lines),
        tuple((letter, text) for letter, text in notes.listed() if letter in used),
    )


def _name(metric: str) -> str:
    title = NAMES.get(base(metric), base(metric).removesuffix("_bytes").replace("_", " "))
    return f"{title} ({variant(metric)})" if variant(metric) else title


def _order(metric: str) -> tuple[int, str]:
    known = list(NAMES)
    return known.index(base(metric)) if base(metric) in known else len(known), metric
