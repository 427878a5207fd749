"""Which trainings have room in figures and pictures where a run has more than anyone can tell apart there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from bench.report.rows import Row, Sheet

MOST_MARKS = 40
"""Rows with a mark and a name of their own (`Row.shown`) up to which all are shown."""

FEW_MARKS = 20
"""How many are shown where there are more: enough to compare, and few enough to be read."""

FEW_ROWS = 160
"""How many are shown where there are more rows or marks than that."""

MOST_LINES = 1000
"""Rows of a page's table: a page of all rows of 100,000 records would be too large to open."""

FEW_PANELS = 6
"""Small canvases, one a training, where there are more than `MOST_MARKS` rows."""

MOST_ROWS = 600
"""Rows with a mark, further draws included."""


def thinned(sheet: Sheet) -> Sheet:
    """The sheet itself, or the part of it that figures have room for.

    References stay; of the others the trainings of the lowest FD, the families taking turns, so that none is missing
    where there are fewer families than places.
    """
    if not _crowded(sheet.rows):
        return sheet
    references = [row.title for row in sheet.rows if row.model.is_reference]
    held: dict[str, list[Row]] = {}
    for row in sheet.rows:
        held.setdefault(row.title, []).append(row)
    kept: list[str] = []
    marks = deep = 0
    for title in dict.fromkeys((*references, *_by_turns(sheet, held))):
        own = held[title]
        marks += sum(row.shown for row in own)
        if deep and marks > FEW_MARKS:
            break
        deep += not own[0].model.is_reference
        kept.append(title)
    chosen = set(kept)
    few = tuple(row for row in sheet.rows if row.title in chosen)
    further = [row for row in few if not row.shown]
    dropped = {id(row) for row in further[max(0, FEW_ROWS - len(few) + len(further)) :]}
    few = tuple(row for row in few if id(row) not in dropped)
    return replace(sheet, rows=few, left_out=frozenset(held) - chosen)


def listed(sheet: Sheet) -> Sheet:
    """The sheet itself, or the rows that a page's tables have room for: those of the lowest FD, in their order."""
    if len(sheet.rows) <= MOST_LINES:
        return sheet
    values = [(row.value(sheet.quality), i) for i, row in enumerate(sheet.rows)]
    order = sorted(range(len(values)), key=lambda i: (values[i][0] is None, values[i][0] or 0.0, i))
    chosen = set(order[:MOST_LINES])
    return replace(sheet, rows=tuple(row for i, row in enumerate(sheet.rows) if i in chosen))


def told(whole: Sheet, few: Sheet) -> str:
    """What figures and tables leave out, in words; empty where it is nothing."""
    if len(few.rows) == len(whole.rows):
        return ""
    rows = len(whole.rows)
    tables = f"The tables show the {MOST_LINES} of {rows} rows with the lowest FD, what is bold among these"
    tables = f"{tables}; table.csv holds all." if rows > MOST_LINES else "The tables and table.csv hold all."
    count = len({row.title for row in whole.rows})
    return (
        f"Figures, pictures and the blocks of models show {count - len(few.left_out)} of {count} trainings "
        f"({len(few.rows)} of {rows} rows): the references and those of the lowest FD, the families taking turns. "
        + tables
    )


def _crowded(rows: Sequence[Row]) -> bool:
    return sum(row.shown for row in rows) > MOST_MARKS or len(rows) > MOST_ROWS


def _by_turns(sheet: Sheet, held: dict[str, list[Row]]) -> list[str]:
    """Titles, the best of each family first, then the second best of each; those without an FD last."""

    def best(title: str) -> float:
        values = [v for row in held[title] if (v := row.value(sheet.quality)) is not None]
        return min(values, default=float("inf"))

    families: dict[str, list[str]] = {}
    for title, own in held.items():
        families.setdefault(own[0].model.family, []).append(title)
    turns = zip_longest(*(sorted(titles, key=best) for titles in families.values()))
    return [title for turn in turns for title in turn if title is not None]
