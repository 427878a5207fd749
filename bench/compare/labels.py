"""Names of cells from several folders: short, and told apart by the settings in which they differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bench.gate.records import Place, place_of
from bench.record import Cell
from bench.report.marks import flat


def labels(cells: Iterable[Cell]) -> dict[Place, str]:
    """`ddpm-digits (lr=0.001), ddim S=20 eta=0`: each cell's name without its seed."""
    held = {place_of(cell): cell for cell in cells}
    return {
        place: cell.label(told).replace(f" seed {cell.seed}", "" if cell.draw else " (training)", 1)
        for (place, cell), told in zip(held.items(), settings(held.values()).values(), strict=True)
    }


def settings(cells: Iterable[Cell]) -> dict[Place, str]:
    """What sets each cell's training apart from others of its model and data set; mostly empty.

    A setting that some records do not have, as an older program did not know it, is told only where nothing else tells
    two trainings apart.
    """
    held = {place_of(cell): cell for cell in cells}
    groups: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for place, cell in held.items():
        groups[cell.model, cell.dataset].append(place)
    found: dict[Place, str] = {}
    for places in groups.values():
        own = [settings_of(held[place]) for place in places]
        trainings = {
            (held[place].budget.label(), json.dumps(s, sort_keys=True)) for place, s in zip(places, own, strict=True)
        }
        told = _told(own, [held[place] for place in places], strict=False)
        if len(set(told)) < len(trainings):
            told = _told(own, [held[place] for place in places], strict=True)
        found |= zip(places, told, strict=True)
    return {place: found[place] for place in held}


def settings_of(cell: Cell) -> dict[str, str]:
    """The config's settings, those within others as `outer.inner`."""
    return flat(json.loads(json.dumps(dict(cell.config), default=str)))


def _told(own: Sequence[Mapping[str, str]], cells: Sequence[Cell], strict: bool) -> list[str]:
    """strict: settings that some cells lack count as differences."""
    names = dict.fromkeys(name for held in own for name in held)
    values = {name: {held.get(name) for held in own} for name in names}
    differ = [name for name, found in values.items() if len(found - (set() if strict else {None})) > 1]
    budgets = len({cell.budget.label() for cell in cells}) > 1
    return [
        ", ".join(
            [f"{name}={held[name]}" for name in differ if name in held] + ([cell.budget.label()] if budgets else [])
        )
        for held, cell in zip(own, cells, strict=True)
    ]
