"""The look of every figure: a colour-blind-safe palette, light cards, and files that come out byte for byte the same.

Palette: Okabe and Ito 2008, "Color Universal Design". Marker shapes say the same as colours.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.report.source import REFERENCES

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

_SETTINGS: dict[str, Any] = {
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
    "svg.fonttype": "path",
    "svg.hashsalt": "trilemma",
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


def draw(
    name: str, title: str, caption: str, size: tuple[float, float], paint: Callable[[Figure], None]
) -> Picture:
    """Paint a figure and return it as SVG and PNG, without dates or version strings.

    Args:
        name: file name without ending.
        title: heading above it.
        caption: what to see.
        size: inches.
        paint: fills the empty figure; it is called under the style's settings.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return Picture(name, title, caption, svg.getvalue(), png.getvalue(), round(size[0] * 96), round(size[1] * 96))


def colour(family: str) -> str:
    """A family's colour."""
    return COLOURS.get(family, COLOURS["other"])


def marker(family: str) -> str:
    """A family's marker."""
    return MARKERS.get(family, MARKERS["other"])


def label_points(axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], size: float = 9) -> None:
    """Write each text beside its point (data coordinates), at the first of several places that is still free.

    A text that finds no free place near its point goes further away, with a thin line to it.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout must be final before pixels are compared
    centres = [tuple(axes.transData.transform(point)) for point in points]
    scale = figure.dpi / 72
    taken = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in centres]
    frame = axes.get_window_extent()
    for (x, y), text in sorted(zip(centres, texts, strict=True), key=lambda item: (-item[0][1], item[0][0])):
        width, height = 0.58 * size * len(text) * scale, 1.25 * size * scale
        best: tuple[float, tuple[float, float], tuple[float, float, float, float]] | None = None
        for distance in (8, 16, 28, 44, 64):
            for dx, dy in ((1, 0), (-1, 0), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8), (0, 1), (0, -1)):
                left = x + dx * distance * scale - (width if dx < 0 else width / 2 if dx == 0 else 0)
                low = y + dy * distance * scale - height / 2
                box = (left, low, left + width, low + height)
                cost = sum(_overlap(box, other) for other in taken) + 2 * _outside(box, frame) + distance
                if best is None or cost < best[0]:
                    best = (cost, (left, low), box)
        assert best is not None
        _, (left, low), box = best
        taken.append(box)
        offset = ((left - x) / scale, (low - y + height / 2) / scale)
        far = abs(offset[1]) > 18 or (offset[0] > 18 or offset[0] + width / scale < -18)
        axes.annotate(
            text,
            axes.transData.inverted().transform((x, y)),
            offset,
            textcoords="offset points",
            fontsize=size,
            va="center",
            ha="left",
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkA": 0, "shrinkB": 4} if far else None,
        ).set_in_layout(False)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: tuple[float, float, float, float], frame: Any) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))
