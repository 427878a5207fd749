"""A number for every pixel: what each costs in bits, and how strongly the pixels before one bear on it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from baselines.errors import UserError
from bench.record import Artifact
from bench.report.artifacts import read_artifact
from bench.report.drawn import Data
from bench.report.numbers import number
from bench.report.style import FAINT, Picture, draw

_LARGEST = 1024  # pixels of a side
_COLUMNS = 4
_NARROWEST = 4.4  # inches: titles of two lines and a bar of colours beside one canvas
_DECADES = 4  # of the context's colours, below its largest value


@dataclass(frozen=True)
class PixelMap:
    """A number for every pixel of an image."""

    values: NDArray[np.float64]  # (H, W), finite
    place: tuple[int, int] | None = None  # (row, column) of the pixel that it is about


Maps = Sequence[tuple[str, Mapping[str, PixelMap]]]
"""(title, maps by name) of each training."""


def read_maps(folder: Path, artifact: Artifact) -> dict[str, PixelMap]:
    """JSON {name: {"values": (H, W) or (C, H, W) numbers, "place": [row, column]}}; colours are summed.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        plain: Any = json.loads(data)
        return {str(name): _map(held) for name, held in plain.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"artifact {artifact.path}: expected maps of pixels, got {error}") from error


def _map(held: Any) -> PixelMap:
    values = np.asarray(held["values"], dtype=np.float64)
    if values.ndim == 3:
        values = values.sum(0)
    if values.ndim != 2 or not 1 <= min(values.shape) <= max(values.shape) <= _LARGEST:
        raise ValueError(f"values of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a number that is not finite")
    place = held.get("place")
    if place is None:
        return PixelMap(values)
    row, column = (int(v) for v in place)
    if not (0 <= row < values.shape[0] and 0 <= column < values.shape[1]):
        raise ValueError(f"a place {row}, {column} outside of {values.shape}")
    return PixelMap(values, (row, column))


def bits(name: str, maps: Maps) -> Picture | None:
    """What each pixel costs on average over the test images, all models on one scale of colours."""
    held = [(f"{title}", found) for title, each in maps for key, found in each.items() if key.startswith("bits[exact")]
    if not held:
        return None
    highest = max(float(found.values.max()) for _, found in held)

    def paint(figure: Figure) -> None:
        images = []
        for canvas, (title, found) in _canvases(figure, held):
            images.append(canvas.imshow(found.values, cmap="magma", vmin=0, vmax=highest, interpolation="nearest"))
            canvas.set_title(f"{title}\n{number(float(found.values.mean()))} bits a pixel", fontsize=9)
        bar = figure.colorbar(images[0], ax=figure.axes, shrink=0.8)
        bar.set_label("bits, mean over images", fontsize=9)

    caption = (
        "Mean of −log2 P(pixel | those before it) at every place. Dark is what costs nothing: borders that are always "
        "black. Bright is what cannot be foreseen, mostly where a stroke begins; what follows from the pixels to its "
        "left and above is cheaper. The mean of a map is the model's bits/dim (times its colours)."
    )
    data = Data(("model", "row", "bits of each pixel of the row"), tuple(_told(held)))
    return draw(name, "What each pixel costs", caption, _size(len(held)), paint, data=data)


def contexts(name: str, maps: Maps, shares: Mapping[str, float]) -> Picture | None:
    """How strongly each earlier pixel bears on the middle one; shares: `context_fraction` by title."""
    held = [(title, each["context"]) for title, each in maps if "context" in each and each["context"].values.max() > 0]
    if not held:
        return None

    def paint(figure: Figure) -> None:
        images = []
        for canvas, (title, found) in _canvases(figure, held):
            relative = found.values / found.values.max()
            seen = np.ma.masked_equal(relative, 0)
            canvas.set_facecolor("white")
            norm = LogNorm(10.0**-_DECADES, 1, clip=True)
            images.append(canvas.imshow(seen, cmap="viridis", norm=norm, interpolation="nearest"))
            if found.place is not None:
                row, column = found.place
                box = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", lw=1.6)
                canvas.add_patch(box)
            share = shares.get(title)
            told = "" if share is None else f"\n{_percent(share)} of contexts"
            canvas.set_title(f"{title}{told}", fontsize=9)
        bar = figure.colorbar(images[0], ax=figure.axes, shrink=0.8)
        bar.set_ticks([10.0**-k for k in range(_DECADES + 1)], labels=[f"{10.0**-k:g}" for k in range(_DECADES + 1)])
        bar.ax.minorticks_off()
        bar.set_label("slope, of the largest", fontsize=9)

    caption = (
        "Of the pixel in the red frame: how far its log-probability moves with each pixel before it, mean over test "
        "images, on a logarithmic scale. White pixels bear on it not at all: those drawn later always; earlier ones "
        "where the masks leave a blind spot or the layers do not reach. The share of contexts used, "
        "above, counts every conditional."
    )
    data = Data(("model", "row", "slope of each pixel of the row"), tuple(_told(held)))
    return draw(name, "The context of the middle pixel", caption, _size(len(held)), paint, data=data)


def _told(held: Sequence[tuple[str, PixelMap]]) -> Iterator[tuple[str, str, str]]:
    for title, found in held:
        for number_, row in enumerate(found.values):
            yield title, str(number_), " ".join(f"{v:.3g}" for v in row)


def _percent(share: float) -> str:
    return f"{math.floor(share * 1000) / 10:g} %"  # 99.96 % are not all


def _size(number_: int) -> tuple[float, float]:
    lines = -(-number_ // _COLUMNS)
    return max(1.9 * min(number_, _COLUMNS) + 1.4, _NARROWEST), 2.25 * lines + 0.2


def _canvases(figure: Figure, held: Sequence[tuple[str, PixelMap]]) -> Any:
    columns = min(len(held), _COLUMNS)
    grid = figure.subplots(-(-len(held) // columns), columns, squeeze=False)
    for canvas in grid.flat:
        canvas.set_xticks([])
        canvas.set_yticks([])
        canvas.grid(False)
        for spine in canvas.spines.values():
            spine.set_visible(True)
            spine.set_color(FAINT)
    for canvas in list(grid.flat)[len(held) :]:
        canvas.set_axis_off()
    return zip(grid.flat, held, strict=False)
