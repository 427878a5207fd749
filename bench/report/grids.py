"""Sample grids: the first images of each draw beside real ones, pixel for pixel, as small PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
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
    across: int = 0  # image pixels
    down: int = 0


def grid(title: str, note: str, images: Images, side: int = SIDE) -> Grid:
    """The first side * side images, row by row; levels 0 .. levels - 1 become black .. white.

    All grids of images of one size come out at one scale: a whole number of screen pixels an image pixel.
    """
    canvas = tile(images, side)
    scale = max(1, round(240 / canvas.shape[1]))
    return Grid(
        title, note, as_png(canvas), canvas.shape[1] * scale, canvas.shape[0] * scale, canvas.shape[1], canvas.shape[0]
    )


def grids_within(room: int, held: Sequence[tuple[str, str, Images]]) -> list[Grid]:
    """A grid of each (title, note, images), all of so many images a side that their files take at most `room` bytes.

    Large colour images would else make a page that no one can open: 8x8 of 64x64 pixels are 800 kB a model.
    """
    for side in (SIDE, 6, 4, 3, 2):
        made = [grid(title, note, images, side) for title, note, images in held]
        if sum(len(one.png) for one in made) <= room:
            break
    return made


def as_png(canvas: NDArray[np.uint8]) -> bytes:
    """A PNG file of (H, W) or (H, W, channels): 2 are grey and alpha, 3 are colours, 4 colours and alpha."""
    buffer = io.BytesIO()
    few = _palette(canvas)
    (Image.fromarray(canvas) if few is None else few).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _palette(canvas: NDArray[np.uint8]) -> Image.Image | None:
    """The same colours by number, where they are at most 256: a third of the bytes or less; None for more."""
    flat = canvas.reshape(canvas.shape[0] * canvas.shape[1], -1).astype(np.uint32)
    packed = (flat << np.arange(0, 8 * flat.shape[1], 8, dtype=np.uint32)).sum(1, dtype=np.uint32)
    found, places = np.unique(packed, return_inverse=True)
    if len(found) > 256:
        return None
    colours = (found[:, None] >> np.arange(0, 8 * flat.shape[1], 8, dtype=np.uint32)).astype(np.uint8)
    image = Image.fromarray(places.reshape(canvas.shape[:2]).astype(np.uint8), mode="P")
    channels = colours.shape[1]
    image.putpalette((colours[:, :3] if channels > 2 else colours[:, :1].repeat(3, 1)).tobytes())
    if channels in (2, 4):
        image.info["transparency"] = colours[:, -1].tobytes()
    return image


def enlarged(picture: Grid) -> bytes:
    """The same grid as a PNG of its shown size, without smoothing, for places that cannot scale by whole pixels."""
    image = Image.open(io.BytesIO(picture.png))
    buffer = io.BytesIO()
    image.resize((picture.width, picture.height), Image.Resampling.NEAREST).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def tile(images: Images, side: int) -> NDArray[np.uint8]:
    """(H', W') or (H', W', 3) uint8: a grid of `side` columns with one white pixel between images."""
    return lay_out(images.pixels[: side * side], images.levels, side)


def lay_out(pixels: NDArray[np.uint8], levels: int, columns: int) -> NDArray[np.uint8]:
    """All images (n, C, H, W), row by row, with one white pixel between them."""
    n, channels, height, width = pixels.shape
    lines = max(1, -(-n // columns))
    canvas = np.full((lines * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    shown = np.rint(pixels.astype(np.float64).clip(0, levels - 1) * (255 / (levels - 1)))
    for i, image in enumerate(shown.astype(np.uint8)):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas[:, :, 0] if channels == 1 else canvas
