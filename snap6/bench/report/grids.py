"""Sample grids: the first images of each draw beside real ones, pixel for pixel, as small PNG files."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.report.artifacts import Images

SIDE = 8
"""Images along a grid's side; the first SIDE * SIDE, never picked."""


@dataclass(frozen=True)
class Grid:
    """One grid of images."""

    title: str
    note: str
    png: bytes  # one pixel a pixel, one pixel of white between images
    width: int  # CSS pixels at which the page shows it
    height: int


def grid(title: str, note: str, images: Images, side: int = SIDE) -> Grid:
    """The first side * side images, row by row; levels 0 .. levels - 1 become black .. white.

    All grids of images of one size come out at one scale: a whole number of screen pixels an image pixel.
    """
    canvas = tile(images, side)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG", optimize=True)
    scale = max(1, round(240 / canvas.shape[1]))
    return Grid(title, note, buffer.getvalue(), canvas.shape[1] * scale, canvas.shape[0] * scale)


def enlarged(picture: Grid) -> bytes:
    """The same grid as a PNG of its shown size, without smoothing, for places that cannot scale by whole pixels."""
    image = Image.open(io.BytesIO(picture.png))
    buffer = io.BytesIO()
    image.resize((picture.width, picture.height), Image.Resampling.NEAREST).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def tile(images: Images, side: int) -> NDArray[np.uint8]:
    """(H', W') or (H', W', 3) uint8: a grid of `side` columns with one white pixel between images."""
    pixels = images.pixels[: side * side]
    n, channels, height, width = pixels.shape
    lines = max(1, -(-n // side))
    canvas = np.full((lines * (height + 1) - 1, side * (width + 1) - 1, channels), 255, np.uint8)
    shown = np.rint(pixels.astype(np.float64).clip(0, images.levels - 1) * (255 / (images.levels - 1)))
    for i, image in enumerate(shown.astype(np.uint8)):
        top, left = (i // side) * (height + 1), (i % side) * (width + 1)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas[:, :, 0] if channels == 1 else canvas
