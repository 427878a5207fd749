"""The look of every figure: a colour-blind-safe palette, light cards, and files that come out byte for byte the same.

Palette: Okabe and Ito 2008, "Color Universal Design". Marker shapes say the same as colours.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from bench.report.drawn import Data, Mark, Spot, lines_of, spots
from bench.report.source import REFERENCES
from bench.report.svg import HALO, slim

COLOURS = {
    "autoencoders": "#E69F00",
    "gans": "#D55E00",
    "autoregressive": "#009E73",
    "flows": "#CC79A7",
    "diffusion": "#0072B2",
    "other": "#56B4E9",
    REFERENCES: "#6B7280",
}
MARKERS = {
    "autoencoders": "s",
    "gans": "^",
    "autoregressive": "D",
    "flows": "v",
    "diffusion": "o",
    "other": "P",
    REFERENCES: "X",
}
INK, FAINT, GRID = "#1F2933", "#5B6673", "#E2E6EB"

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib: the same text everywhere
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "axes.unicode_minus": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "text.parse_math": False,  # names in records are text: a $ is a $
    "svg.fonttype": "path",
    "svg.hashsalt": "trilemma",
    "pdf.fonttype": 42,  # TrueType, embedded: text can be searched and edited, and publishers take no Type 3
    "path.simplify": True,
}


@dataclass(frozen=True)
class Picture:
    """A finished figure."""

    name: str  # file name without ending
    title: str
    caption: str  # what to see
    svg: bytes
    png: bytes
    width: int  # CSS pixels at which its text has the size it was drawn for
    height: int
    spots: tuple[Spot, ...] = ()  # marks that tell their numbers
    data: Data | None = None
    figure: Figure | None = field(default=None, repr=False, compare=False)

    def pdf(self) -> bytes:
        """The figure as PDF for papers: text as text, fonts embedded, no dates. Made when it is asked for."""
        from matplotlib.backends.backend_pdf import FigureCanvasPdf  # a fifth of a second that few reports need

        assert self.figure is not None
        held = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
        with mpl.rc_context(_SETTINGS), _rims_left_out(self.figure, paper=True), _dots(self.figure, 72):
            FigureCanvasPdf(self.figure).print_pdf(held, metadata=nothing)  # type: ignore[no-untyped-call]
        return held.getvalue()


def draw(
    name: str,
    title: str,
    caption: str,
    size: tuple[float, float],
    paint: Callable[[Figure], None],
    marks: Sequence[Mark] = (),
    data: Data | None = None,
) -> Picture:
    """Paint a figure and return it as SVG and PNG, without dates or version strings.

    Args:
        name: file name without ending.
        title: heading above it.
        caption: what to see.
        size: inches.
        paint: fills the empty figure; it is called under the style's settings.
        marks: what the points of clouds and lines tell, see `spots`; `paint` may add to them by `tell`.
        data: the numbers that are drawn; None: those of the lines that have a name.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not again for each file
        svg, png = io.BytesIO(), io.BytesIO()
        # by the canvases themselves: `savefig` draws all of it once more beforehand, for a layout that is made already
        with _rims_left_out(figure), _dots(figure, figure.dpi):
            FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
        with _dots(figure, 160):
            FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})  # type: ignore[no-untyped-call]
    width, height = round(size[0] * 96), round(size[1] * 96)
    placed, numbers = tuple(spots(figure, marks, height)), data or lines_of(figure)
    return Picture(name, title, caption, slim(svg.getvalue()), png.getvalue(), width, height, placed, numbers, figure)


@contextmanager
def _dots(figure: Figure, dpi: float) -> Iterator[None]:
    """The figure at another resolution."""
    before = figure.dpi
    figure.dpi = dpi
    try:
        yield
    finally:
        figure.dpi = before


@contextmanager
def _rims_left_out(figure: Figure, paper: bool = False) -> Iterator[None]:
    """Texts with a rim are named instead: as paths each letter would be written twice, in full.

    paper: they stand on a veil of white.
    """
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_path_effects()]
    effects = [text.get_path_effects() for text in texts]
    for number, text in enumerate(texts):
        text.set_path_effects([])
        text.set_gid(f"{HALO}{number}")
        if paper:
            text.set_bbox({"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.3})
    yield
    for text, held in zip(texts, effects, strict=True):
        text.set_path_effects(held)
        if paper:
            text.set_bbox(None)


def colour(family: str) -> str:
    """A family's colour."""
    return COLOURS.get(family, COLOURS["other"])


def marker(family: str) -> str:
    """A family's marker."""
    return MARKERS.get(family, MARKERS["other"])


def label_points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    radii: Sequence[float],
    size: float = 9,
) -> None:
    """Write each text beside its point (data coordinates; radii in points), at the first place that is free.

    A text that finds no free place near its point goes further away, with a thin line to it.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout must be final before pixels are compared
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
    return float(TextPath((0, 0), text.replace("$", "S"), size=size).get_extents().width) + 2


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
