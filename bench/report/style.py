"""The look of every figure: a colour-blind-safe palette, light cards, and files that come out byte for byte the same.

Palette: Okabe and Ito 2008, "Color Universal Design". Marker shapes say the same as colours.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bench.report.drawn import Data, Mark, Spot, lines_of, spots
from bench.report.forks import Later, later
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
FONT = "DejaVu Sans"  # shipped with matplotlib: the same text everywhere
_DPI = 160  # of PNG files
INK, FAINT, GRID = "#1F2933", "#5B6673", "#E2E6EB"

_SETTINGS: Any = {
    "font.family": FONT,
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
    "text.hinting": "none",  # fine at these resolutions, and in half the time
    "text.parse_math": False,  # names in records are text: a $ is a $
    "svg.fonttype": "path",
    "svg.hashsalt": "trilemma",
    "pdf.fonttype": 42,  # TrueType, embedded: text can be searched and edited, and publishers take no Type 3
    "path.simplify": True,
}


class Drawing(NamedTuple):
    """What a figure is once it is painted."""

    svg: bytes
    png: bytes
    pdf: bytes | None  # for papers, if wanted: text as text, fonts embedded, no dates
    spots: tuple[Spot, ...]  # marks that tell their numbers
    data: Data | None


@dataclass(frozen=True)
class Picture:
    """A figure; it may still be in the making elsewhere, and who asks for its drawing waits for it."""

    name: str  # file name without ending
    title: str
    caption: str  # what to see
    width: int  # CSS pixels at which its text has the size it was drawn for
    height: int
    drawing: Later[Drawing]

    @property
    def svg(self) -> bytes:
        """The figure as SVG."""
        return self.drawing.result().svg

    @property
    def png(self) -> bytes:
        """The figure as PNG."""
        return self.drawing.result().png

    @property
    def pdf(self) -> bytes | None:
        """The figure as PDF, if that was wanted, see `papers`."""
        return self.drawing.result().pdf

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Its marks that tell their numbers."""
        return self.drawing.result().spots

    @property
    def data(self) -> Data | None:
        """The numbers that it draws."""
        return self.drawing.result().data


_PDF: ContextVar[Callable[[str], bool]] = ContextVar("pdf", default=lambda name: False)


@contextmanager
def papers(wanted: Callable[[str], bool]) -> Iterator[None]:
    """Within it, figures of wanted names are made as PDF too."""
    held = _PDF.set(wanted)
    try:
        yield
    finally:
        _PDF.reset(held)


def draw(
    name: str,
    title: str,
    caption: str,
    size: tuple[float, float],
    paint: Callable[[Figure], None],
    marks: Sequence[Mark] = (),
    data: Data | None = None,
) -> Picture:
    """Have a figure painted as SVG, PNG and perhaps PDF, see `papers`, without dates or version strings.

    Within `forks.hands` another process does it: what `paint` changes besides the figure and the marks is lost.

    Args:
        name: file name without ending.
        title: heading above it.
        caption: what to see.
        size: inches.
        paint: fills the empty figure; it is called under the style's settings.
        marks: what the points of clouds and lines tell, see `spots`; `paint` may add to them by `tell`.
        data: the numbers that are drawn; None: those of the lines that have a name.
    """
    width, height, printed = round(size[0] * 96), round(size[1] * 96), _PDF.get()(name)

    def made() -> Drawing:
        with mpl.rc_context(_SETTINGS):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            paint(figure)
            lay_out(figure)
            files = _svg(figure), _png(figure), _pdf(figure) if printed else None
        return Drawing(*files, tuple(spots(figure, marks, height)), data or lines_of(figure))

    return Picture(name, title, caption, width, height, later(made))


# By the canvases themselves: `savefig` draws all of it once more beforehand, for a layout that is made already.
def _svg(figure: Figure) -> bytes:
    held = io.BytesIO()
    with _rims_left_out(figure), _dots(figure, figure.dpi):
        FigureCanvasSVG(figure).print_svg(held, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return slim(held.getvalue())


def _png(figure: Figure) -> bytes:
    held = io.BytesIO()
    with _dots(figure, _DPI):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        size, seen = canvas.get_width_height(physical=True), canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    Image.frombuffer("RGBA", size, seen).convert("RGB").save(held, "png", dpi=(_DPI, _DPI))
    return held.getvalue()


def _pdf(figure: Figure) -> bytes:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # a fifth of a second that few reports need

    held = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
    with _rims_left_out(figure, paper=True), _dots(figure, 72):
        FigureCanvasPdf(figure).print_pdf(held, metadata=nothing)  # type: ignore[no-untyped-call]
    return held.getvalue()


def lay_out(figure: Figure) -> None:
    """Give the axes their places, once and for all: not again for each file, nor for what is painted later."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


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
