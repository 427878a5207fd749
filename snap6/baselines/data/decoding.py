"""Image files to pixels: one set of formats, modes and refusals for every place that reads a user's images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from baselines.data.splitting import Images
from baselines.errors import UserError

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # and no format that starts another program
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"})

Source = Path | bytes


@dataclass(frozen=True)
class Look:
    """What a file's header says."""

    name: str
    size: tuple[int, int]  # (width, height)
    grey: bool


def one_size(looks: Sequence[Look], name: str) -> tuple[int, int]:
    """The (width, height) of all.

    Raises:
        UserError: naming two files of different size.
    """
    for one in looks:
        if one.size != looks[0].size:
            sizes = " and ".join(f"{it.name} of {it.size[0]}x{it.size[1]}" for it in (looks[0], one))
            raise UserError(f"{name}: expected images of one size, got {sizes}; resize or crop them to one size")
    return looks[0].size


@contextlib.contextmanager
def _opened(source: Source, name: object) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise whatever they meet: SyntaxError, struct.error, ...
        raise UserError(f"{name}: cannot be read as an image ({error}); mend or remove it") from None


def look(source: Source, name: object) -> Look:
    """Read the header of a file, given by its path or its content.

    Raises:
        UserError: if it is no still image of 8-bit grey or RGB.
    """
    with _opened(source, name) as image:
        if image.mode not in _MODES:
            raise UserError(f"{name}: expected 8-bit grey or RGB, got mode {image.mode}; convert it")
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a JPEG with its previews
        if frames > 1:
            raise UserError(f"{name}: expected a still image, got {frames} frames; save one frame")
        palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
        grey = image.mode in ("1", "L", "LA", "La")
        if palette is not None:
            grey = palette[0::3] == palette[1::3] == palette[2::3]
        return Look(str(name), image.size, grey)


def decode(source: Source, name: object, mode: str) -> Images:
    """uint8 (C, H, W) of a file, given by its path or its content; mode L or RGB.

    Raises:
        UserError: if it is damaged or not opaque.
    """
    with _opened(source, name) as image:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            if image.getchannel("A").getextrema()[0] != 255:
                raise UserError(f"{name}: expected an opaque image, got transparent pixels; flatten it first")
        pixels = np.asarray(image.convert(mode), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
