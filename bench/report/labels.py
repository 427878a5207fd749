"""Names beside the points of a figure, where there is room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.font_manager import findfont, get_font
from matplotlib.patheffects import withStroke

from bench.report.style import FAINT, FONT, lay_out


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    radii: Sequence[float],
    size: float = 9,
) -> None:
    """Write each text beside its point (data coordinates; radii in points), at the first place that is free.

    A text that finds no free place near its point goes further away, with a thin line to it. The layout must be final
    before pixels are compared, so it is made here: what takes room is to be painted before.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    lay_out(figure)
    scale = figure.dpi / 72
    centres = [tuple(axes.transData.transform(point) / scale) for point in points]  # in points from now on
    taken = [Box(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)]
    extent = axes.get_window_extent()
    frame = Box(*(v / scale for v in (extent.x0, extent.y0, extent.x1, extent.y1)))
    for i in sorted(range(len(texts)), key=lambda i: (-centres[i][1], centres[i][0])):
        others = [taken[j] for j in range(len(taken)) if j != i]
        marks = [centre for j, centre in enumerate(centres) if j != i]
        (x, y), place, far = _place(centres[i], radii[i], text_width(texts[i], size), 1.25 * size, others, marks, frame)
        taken += [place, *(_leader(centres[i], place) if far else ())]
        axes.annotate(
            texts[i],
            points[i],
            (place.left - x, (place.low + place.high) / 2 - y),
            textcoords="offset points",
            fontsize=size,
            va="center",
            ha="left",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=5,
        ).set_in_layout(False)
        if far:
            end = _nearest_edge(centres[i], place)
            inverse = axes.transData.inverted()
            line = [inverse.transform((px * scale, py * scale)) for px, py in (centres[i], end)]
            axes.plot(*zip(*line, strict=True), color=FAINT, lw=0.6, zorder=2, scalex=False, scaley=False)


@cache
def text_width(text: str, size: float) -> float:
    """About how wide a text is, in points."""
    font = get_font(findfont(FONT))
    font.set_size(size, 72)
    font.set_text(text)
    return float(font.get_width_height()[0] / 64) + 2  # the font counts in 64ths


class Box(NamedTuple):
    """A rectangle in points."""

    left: float
    low: float
    right: float
    high: float

    def overlap(self, other: Box) -> float:
        """The area in common."""
        if self.left >= other.right or other.left >= self.right or self.low >= other.high or other.low >= self.high:
            return 0.0
        width = min(self.right, other.right) - max(self.left, other.left)
        return width * (min(self.high, other.high) - max(self.low, other.low))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.high - self.low)


_DIRECTIONS = ((1, 0), (-1, 0), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8), (0, 1), (0, -1))


def _place(
    centre: tuple[float, ...],
    radius: float,
    width: float,
    height: float,
    taken: Sequence[Box],
    marks: Sequence[tuple[float, ...]],
    frame: Box,
) -> tuple[tuple[float, float], Box, bool]:
    """The cheapest of forty places for a text: overlap and leaving the frame cost most, distance little.

    A text that stands nearer to another mark than to its own would be taken for that one's, and costs as well.
    """
    x, y = centre
    best: tuple[float, Box, bool] | None = None
    for step in (3, 12, 24, 40, 60):
        if best is not None and best[0] <= step:
            break  # nothing at this distance costs less
        for dx, dy in _DIRECTIONS:
            left = x + dx * (radius + step) - (width if dx < 0 else width / 2 if dx == 0 else 0)
            low = y + dy * (radius + step) - height / 2
            box, far = Box(left, low, left + width, low + height), step > 12
            crossed = sum(part.overlap(other) for part in (_leader(centre, box) if far else ()) for other in taken)
            own = math.dist(centre, _nearest_edge(centre, box))
            stolen = sum(max(0.0, own - math.dist(mark, _nearest_edge(mark, box))) for mark in marks)
            cost = 4 * sum(box.overlap(t) for t in taken) + 4 * (box.area - box.overlap(frame)) + 4 * crossed + step
            cost += 20 * stolen
            if best is None or cost < best[0]:
                best = (cost, box, far)
    assert best is not None
    return (x, y), best[1], best[2]


def _nearest_edge(point: tuple[float, ...], box: Box) -> tuple[float, float]:
    return min(max(point[0], box.left), box.right), min(max(point[1], box.low), box.high)


def _leader(point: tuple[float, ...], box: Box) -> list[Box]:
    """Small boxes along the line from a point to a text, so that texts and lines keep clear of each other."""
    x, y = _nearest_edge(point, box)
    spots = [(point[0] + (x - point[0]) * k / 8, point[1] + (y - point[1]) * k / 8) for k in range(2, 8)]
    return [Box(px - 1.5, py - 1.5, px + 1.5, py + 1.5) for px, py in spots]
