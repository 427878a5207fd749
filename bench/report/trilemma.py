"""The trilemma picture: quality against coverage with speed as size, and a small triangle a model."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes as Canvas
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.axes import Axes, Endpoints, formulas
from bench.report.drawn import Data
from bench.report.grouping import CHOSEN_TOLD
from bench.report.labels import label_points, text_width
from bench.report.marks import odd_rows
from bench.report.numbers import number
from bench.report.rows import Row, Sheet
from bench.report.source import FAMILIES
from bench.report.spoken import marks_of, numbers_of
from bench.report.style import FAINT, GRID, INK, Picture, colour, draw, marker

Placed = tuple[Row, Axes]
Spot = tuple[float, float]
SPOKE = "#D5DAE1"
_WIDE, _HIGH = 2.3, 2.7  # from the middle of one triangle to the next; a side's half is 0.87
_TITLE = 105  # points that a name may take in plain letters: the bold ones of neighbours keep apart

CORNERS = ((0.0, 1.0), (math.sin(2 * math.pi / 3), -0.5), (-math.sin(2 * math.pi / 3), -0.5))
"""Unit vectors of quality (up), coverage (right), speed (left), y upwards."""


def triangle(at: Axes) -> list[tuple[float, float]]:
    """Where a model's three values lie on the three spokes, each in [0, 1] of the spoke's length."""
    return [(x * v, y * v) for (x, y), v in zip(CORNERS, at.clipped(), strict=True)]


def picture(name: str, sheet: Sheet, placed: Sequence[Placed], ends: Endpoints) -> Picture:
    """The map on the left, the triangles on the right; for the README and the Markdown report."""
    columns = 3 if len(placed) > 4 else 2
    lines = max(2, math.ceil(len(placed) / columns))

    def paint(figure: Figure) -> None:
        top, foot = figure.subfigures(2, 1, squeeze=False, height_ratios=(lines * 1.95, 0.42))[:, 0]
        left, right = top.subfigures(1, 2, squeeze=False, width_ratios=(5.4, 1.75 * columns))[0]
        right.suptitle("up: quality (FD)      right: coverage      left: speed (images/s)", fontsize=10, color=FAINT)
        canvas = right.subplots()  # one for all: a canvas for each takes ten times as long to lay out
        canvas.set_axis_off()
        canvas.set_xlim(-_WIDE / 2, (columns - 0.5) * _WIDE)
        canvas.set_ylim(-(lines - 1) * _HIGH - 0.95, _HIGH - 0.95)
        middles = [(i % columns * _WIDE, -(i // columns) * _HIGH) for i in range(len(placed))]
        _paint_triangles(canvas, placed, middles)
        for (row, _), middle in zip(placed, middles, strict=True):
            _name_triangle(canvas, sheet, row, middle)
        foot.text(0.5, 0.5, "\n".join(formulas(ends)), ha="center", va="center", fontsize=8, color=FAINT)
        paint_map(left.subplots(), sheet, placed)

    caption = (
        "Left: up is quality, right is coverage, a larger mark is faster. Right: one triangle a model; a corner at "
        "the outline is the run's best measured endpoint, a corner at the centre its worst. "
        + "; ".join(formulas(ends))
        + "."
    )
    size = (5.4 + 1.75 * columns, 1.95 * lines + 0.42)
    return draw(name, f"The trilemma on {sheet.dataset}", caption, size, paint, data=_data(sheet, placed))


def map_picture(name: str, sheet: Sheet, placed: Sequence[Placed]) -> Picture:
    """Quality against coverage alone, for a page that draws the triangles itself."""
    caption = (
        "Up is quality, right is coverage, a larger mark is faster: a model that gave up nothing would be a large "
        "mark at the top right. Speed counts images/s at the large batch. Grey crosses are reference models. "
        + CHOSEN_TOLD
    )
    if odd_rows([row for row, _ in placed], (sheet.quality, sheet.coverage)):
        caption += " Hollow marks are of another protocol than most, and not to be ranked with them; each says which."
    return draw(
        name,
        "Quality against coverage, speed as size",
        caption,
        (6.4, min(9.0, 5.0 + 0.2 * max(0, len(placed) - 9))),  # names of neighbours need room
        lambda figure: paint_map(figure.subplots(), sheet, placed),
        marks_of([row for row, _ in placed], sheet),
        _data(sheet, placed),
    )


def _data(sheet: Sheet, placed: Sequence[Placed]) -> Data:
    """The three axes of each model and what they are made of."""
    rows = []
    for row, at in placed:
        axes = ("–" if v is None else f"{v + 0.0:.3f}" for v in at)
        told = (f"{value} ({span})" if span else value for _, value, span in numbers_of(row, sheet))
        rows.append((row.label, *axes, *told))
    heads = ("model", "quality axis", "coverage axis", "speed axis", "FD", "coverage", "recall", "images/s", "latency")
    return Data(heads, tuple(rows))


def paint_map(canvas: Canvas, sheet: Sheet, placed: Sequence[Placed]) -> None:
    """Scatter of coverage and quality around the deep models; the area of a mark grows with the speed axis."""
    known = [(row, at) for row, at in placed if at.quality is not None and at.coverage is not None]
    spots = [(at.clipped()[1], at.clipped()[0]) for _, at in known]
    deep = [spot for (row, _), spot in zip(known, spots, strict=True) if not row.model.is_reference] or spots
    left, low = _start([x for x, _ in deep]), _start([y for _, y in deep])
    odd = odd_rows([row for row, _ in placed], (sheet.quality, sheet.coverage))
    places = {id(row): number_ for number_, (row, _) in enumerate(placed)}
    inside = [(k, spot) for k, spot in zip(known, spots, strict=True) if spot[0] >= left and spot[1] >= low]
    for (row, at), (x, y) in inside:
        hue, shape = colour(row.model.family), marker(row.model.family)
        area = _area(at.clipped()[2])
        face, edge, rim = ("white", hue, 1.6) if id(row) in odd else (hue, "white", 0.9)
        style: dict[str, Any] = {"facecolors": face, "edgecolors": edge, "linewidths": rim, "zorder": 3}
        canvas.scatter([x], [y], s=area, marker=shape, gid=f"mark{places[id(row)]}", **style)
    canvas.set_xlim(left, 1 + 0.06 * (1 - left))
    canvas.set_ylim(low, 1 + 0.06 * (1 - low))
    outside = [row.short for (row, _) in known if row not in [r for (r, _), _ in inside]]
    beyond = f"\n↙ beyond: {', '.join(outside)}" if outside else ""
    canvas.set_xlabel(f"coverage  (1: real images){beyond}")
    canvas.set_ylabel("quality  (1: real images)")
    canvas.set_title("Quality, coverage, and speed as size")
    canvas.legend(
        handles=_legend([row.model.family for (row, _), _ in inside]),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17 if beyond else -0.13),  # below the axis: inside it would cover marks
        ncols=4,
        columnspacing=1.0,
        handletextpad=0.3,
        fontsize=8.5,
    )
    sizes = [math.sqrt(_area(at.clipped()[2])) / 2 for (_, at), _ in inside]
    label_points(canvas, [spot for _, spot in inside], [row.short for (row, _), _ in inside], sizes)


def _legend(families: Sequence[str]) -> list[Line2D]:
    handles = [
        Line2D([], [], ls="", marker=marker(f), color=colour(f), markersize=8, label=FAMILIES[f])
        for f in dict.fromkeys(families)
    ]
    sizes = ((0.0, "slowest"), (1.0, "fastest"))
    return handles + [
        Line2D([], [], ls="", marker="o", color="#B6BDC6", markersize=math.sqrt(_area(v)), label=text)
        for v, text in sizes
    ]


def _paint_triangles(canvas: Canvas, placed: Sequence[Placed], middles: Sequence[Spot]) -> None:
    """All of them in five artists: one for each part of each triangle takes three times as long to draw."""

    def moved(shape: Sequence[Spot], level: float = 1.0) -> list[list[Spot]]:
        return [[(x * level + left, y * level + low) for x, y in shape] for left, low in middles]

    hues = [colour(row.model.family) for row, _ in placed]
    canvas.add_collection(PolyCollection(moved(CORNERS), facecolors="#F5F7F9", edgecolors=SPOKE, lw=0.8, zorder=0))
    inner = [outline for level in (1 / 3, 2 / 3) for outline in moved(CORNERS, level)]
    canvas.add_collection(PolyCollection(inner, facecolors="none", edgecolors=SPOKE, lw=0.8, zorder=0.5))
    spokes = [spoke for corner in CORNERS for spoke in moved(((0.0, 0.0), corner))]
    canvas.add_collection(LineCollection(spokes, colors=SPOKE, lw=0.8, zorder=1))
    shapes = [moved(triangle(at))[i] for i, (_, at) in enumerate(placed)]
    inside = [to_rgba(hue, 0.35) for hue in hues]
    canvas.add_collection(PolyCollection(shapes, facecolors=inside, edgecolors=hues, lw=1.8, zorder=2))
    dots = [spot for shape in shapes for spot in shape]
    known = [hue if v is not None else GRID for hue, (_, at) in zip(hues, placed, strict=True) for v in at]
    canvas.scatter([x for x, _ in dots], [y for _, y in dots], s=16, c=known, lw=0, zorder=4)


def _name_triangle(canvas: Canvas, sheet: Sheet, row: Row, middle: Spot) -> None:
    left, low = middle
    corners = [(x + left, y + low) for x, y in CORNERS]
    values = [row.value(metric) for metric in (sheet.quality, sheet.coverage, sheet.speed)]
    texts = ["—" if v is None else number(v) for v in values]
    style: dict[str, Any] = {"fontsize": 8, "color": FAINT}
    canvas.text(left, low + 1.06, f"FD {texts[0]}", ha="center", va="bottom", **style)
    canvas.text(corners[1][0] + 0.1, low - 0.58, f"cov. {texts[1]}", ha="right", va="top", **style)
    canvas.text(corners[2][0] - 0.1, low - 0.58, f"{texts[2]}/s", ha="left", va="top", **style)
    title = textwrap.fill(row.short, 26, break_long_words=False) or "–"
    canvas.text(
        left,
        low + 1.3,
        title,
        fontsize=max(6.5, min(9.0, 9 * _TITLE / max(text_width(line, 9) for line in title.splitlines()))),
        weight="bold",
        color=INK,
        ha="center",
        va="bottom",
    )


def _area(speed: float) -> float:
    return 36 + 260 * speed


def _start(values: Sequence[float]) -> float:
    """A little below the lowest, on a tenth: neighbours come apart, and the axis says that it does not start at 0."""
    lowest = min(values, default=0.0)
    return max(0.0, math.floor(10 * lowest - 0.5) / 10) - (0.04 if lowest < 0.15 else 0.0)
