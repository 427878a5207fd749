"""What sets cells of one model apart: the settings in which their configs and budgets differ. Imports no torch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from bench.record import Cell


def variants(cells: Sequence[Cell]) -> list[str]:
    """For each of a model's cells the settings that differ among them, `lr=0.001, 60 s`; empty where none does."""
    names = sorted({name for cell in cells for name in cell.config})
    differ = [n for n in names if len({_canonical(cell.config.get(n)) for cell in cells}) > 1]
    budgets = {cell.budget.label() for cell in cells}
    return [
        ", ".join([f"{n}={cell.config.get(n)}" for n in differ] + ([cell.budget.label()] if len(budgets) > 1 else []))
        for cell in cells
    ]


def told_apart(cells: Sequence[Cell]) -> list[str]:
    """`variants` of each cell among those of its model and data set; cells of several may be mixed."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        groups[cell.model, cell.dataset].append(i)
    names = [""] * len(cells)
    for places in groups.values():
        for i, name in zip(places, variants([cells[i] for i in places]), strict=True):
            names[i] = name
    return names


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
