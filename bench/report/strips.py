"""What a model shows of its own workings: tables of pictures, pixel for pixel, with a label to each row and column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.report.artifacts import StripImages
from bench.report.grids import Grid, as_png, lay_out

_CELL = 40  # CSS pixels that a column has at least, so that its label fits
_GLYPH, _LINE = 6.4, 15  # CSS pixels of a letter and of a line of labels
_SLOPE = 0.75  # height that a slanted label takes, of its length


@dataclass(frozen=True)
class Label:
    """A text with the place where it stands, in CSS pixels of the drawing."""

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Strip:
    """One table of pictures, ready to be drawn."""

    title: str
    caption: str
    picture: Grid  # where it lies in the drawing: x = left, y = top
    left: int
    top: int
    width: int  # of the whole drawing
    height: int
    columns: tuple[Label, ...]
    slanted: bool  # whether the columns' labels are too long to stand upright
    rows: tuple[Label, ...]

    @property
    def told(self) -> str:
        """What the drawing shows, for those who do not see it."""
        rows = f"{len(self.rows)} rows" + (f" ({_listed(self.rows)})" if any(r.text for r in self.rows) else "")
        return f"{self.title}: {rows}, {len(self.columns)} columns ({_listed(self.columns)})"


@dataclass(frozen=True)
class StripSet:
    """All strips of one training."""

    title: str
    note: str
    first: bool  # of its model in the report, shown open
    strips: tuple[Strip, ...]


def strip(held: StripImages) -> Strip:
    """Lay a strip out: one transparent pixel between images, a whole number of screen pixels an image pixel."""
    across = len(held.columns)
    height, width = held.pixels.shape[3:]
    flat = held.pixels.reshape(-1, *held.pixels.shape[2:])
    canvas = np.atleast_3d(lay_out(flat, held.levels, across))
    seen = 255 - lay_out(np.zeros_like(flat[:, :1]), 2, across)  # what lies between images is transparent
    canvas = np.concatenate([canvas, seen[..., None]], 2)
    scale = max(1, -(-_CELL // (width + 1)))
    cell = (width + 1) * scale
    longest = max(len(label) for label in held.columns) * _GLYPH
    slanted = longest > cell - 2
    top = round(_LINE + _SLOPE * longest) if slanted else _LINE
    left = round(max(len(label) for label in held.rows) * _GLYPH) + (6 if any(held.rows) else 0)
    picture = Grid(held.title, "", as_png(canvas), canvas.shape[1] * scale, canvas.shape[0] * scale)
    over = round(_SLOPE * longest) if slanted else 0  # the last slanted label reaches beyond its column
    middle = scale * width / 2
    return Strip(
        held.title,
        held.caption,
        picture,
        left,
        top,
        left + picture.width + over,
        top + picture.height,
        tuple(Label(text, left + i * cell + middle, top - 4) for i, text in enumerate(held.columns)),
        slanted,
        tuple(Label(text, left - 6, top + (i * (height + 1) + height / 2) * scale) for i, text in enumerate(held.rows)),
    )


def _listed(labels: tuple[Label, ...]) -> str:
    return ", ".join(label.text for label in labels)
