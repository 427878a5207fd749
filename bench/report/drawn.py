"""What a finished figure knows of itself: where its marks lie, what they tell, and the numbers that it draws."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray


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


def tell(artist: PathCollection | Line2D, marks: list[Mark], told: Sequence[Mark]) -> None:
    """Let each point of a cloud or line tell a mark of its own: they join `marks`, under the artist's id (`gid`)."""
    artist.set_gid(f"mark{len(marks)}")
    marks += told


def spots(figure: Figure, marks: Sequence[Mark], height: int) -> Iterator[Spot]:
    """The places of the points that tell marks, in the order of the marks; height: of the figure, in CSS pixels.

    The points of a cloud or line whose id (`gid`) is `mark7` tell the marks 7, 8, ... in their order; points that the
    axes cut off tell nothing.
    """
    found: dict[int, Spot] = {}
    for artist in figure.findobj(lambda a: isinstance(a, PathCollection | Line2D) and bool(_first(a))):
        first = _first(artist)
        assert first is not None
        canvas = artist.axes
        frame = figure.bbox if canvas is None else canvas.get_window_extent().padded(2)
        for number, (x, y) in enumerate(_pixels(artist), start=int(first[1])):
            if number < len(marks) and frame.contains(x, y):  # pixels of the figure's dpi
                scale = 96 / figure.dpi
                found[number] = Spot(round(float(x) * scale, 1), round(height - float(y) * scale, 1), marks[number])
    yield from (found[number] for number in sorted(found))


def _first(artist: Artist) -> re.Match[str] | None:
    """The number of an artist's first mark."""
    return re.fullmatch(r"mark(\d+)", artist.get_gid() or "")


def _pixels(artist: Artist) -> NDArray[np.float64]:
    """(n, 2), where the points of a cloud or line lie."""
    if isinstance(artist, PathCollection):
        places = artist.get_offset_transform().transform(artist.get_offsets())
    else:
        assert isinstance(artist, Line2D)
        places = artist.get_transform().transform(artist.get_xydata())
    return np.asarray(places, dtype=float).reshape(-1, 2)


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
