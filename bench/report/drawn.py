"""What a finished figure knows of itself: where its marks lie, what they tell, and the numbers that it draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Mark:
    """What a mark of a figure stands for."""

    title: str
    lines: tuple[str, ...]  # its numbers with their intervals
    anchor: str = ""  # where the page tells more

    @property
    def told(self) -> str:
        """All of it in one line."""
        return f"{self.title}: {', '.join(self.lines)}"


class Spot(NamedTuple):
    """Where a mark lies in a figure, in CSS pixels, y downwards."""

    x: float
    y: float
    mark: Mark


@dataclass(frozen=True)
class Data:
    """The numbers that a figure draws."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def spots(figure: Figure, marks: Sequence[Mark], height: int) -> Iterator[Spot]:
    """The places of the clouds of points whose ids (`gid`) are `mark0`, `mark1`, ...; height: of the figure, in CSS."""
    clouds = {held.get_gid(): held for held in figure.findobj(PathCollection)}
    for number, mark in enumerate(marks):
        cloud = clouds.get(f"mark{number}")
        if isinstance(cloud, PathCollection):
            for x, y in cloud.get_offset_transform().transform(cloud.get_offsets()):  # pixels of the figure's dpi
                yield Spot(round(x * 96 / figure.dpi, 1), round(height - y * 96 / figure.dpi, 1), mark)


def lines_of(figure: Figure) -> Data | None:
    """The points of every line that has a name, canvas by canvas; None if there are none."""
    rows = []
    for canvas in figure.axes:
        for line in canvas.get_lines():
            label = str(line.get_label())
            if not label.startswith("_"):
                points = zip(*(np.asarray(part, dtype=float) for part in line.get_data()), strict=True)
                panel = canvas.get_title(loc="left")
                rows += [(panel, label, f"{x:.6g}", f"{y:.4g}") for x, y in points if math.isfinite(x + y)]
    if not rows:
        return None
    first = figure.axes[0]
    heads = ("panel", "line", first.get_xlabel() or figure.get_supxlabel() or "x", first.get_ylabel() or "y")
    if len({panel for panel, *_ in rows}) == 1:
        return Data(heads[1:], tuple(row[1:] for row in rows))
    return Data(heads, tuple(rows))
