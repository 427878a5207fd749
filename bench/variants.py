"""What sets cells of one model apart: the settings in which their configs and budgets differ. Imports no torch."""

from __future__ import annotations

import json
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


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
