"""Where the codes of test images lie, class by class, among draws of the prior."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from baselines.errors import UserError
from bench.record import Artifact
from bench.report.artifacts import read_artifact
from bench.report.drawn import Data
from bench.report.style import COLOURS, FAINT, INK, Picture, draw

_MOST = 20_000  # points
_COLUMNS = 3
_WRAP = 34  # characters of a title in a line
_GLYPHS = 10  # classes up to here are drawn as their numbers
_HUES = (*(hue for family, hue in COLOURS.items() if family != "references"), "#000000", "#8C7400")
"""Okabe and Ito's colours, and a dark yellow; the glyphs say the same, so that no colour need be told from another."""


@dataclass(frozen=True)
class LatentMap:
    """Points of a space of codes, in two dimensions."""

    points: NDArray[np.float64]  # (N, 2) codes of test images
    prior: NDArray[np.float64]  # (M, 2) draws of the prior
    labels: NDArray[np.int64] | None  # (N,)
    latent: int  # dimensions of a code
    share: float | None  # of the codes' variance that the two axes hold; None: they are the code's own


def read_latent_map(folder: Path, artifact: Artifact) -> LatentMap:
    """JSON {"points": [[x, y], ...], "prior": likewise, "labels": [int, ...] or null, "latent": int, "share": number}.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        plain: Any = json.loads(data)
        points, prior = (_points(plain[name]) for name in ("points", "prior"))
        labels = None if plain["labels"] is None else np.asarray([int(label) for label in plain["labels"]])
        share = None if plain["share"] is None else float(plain["share"])
        latent = int(plain["latent"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise UserError(f"artifact {artifact.path}: expected a latent map, got {error}") from error
    if (labels is not None and len(labels) != len(points)) or (share is not None and not 0 <= share <= 1.001):
        raise UserError(f"artifact {artifact.path}: expected a latent map with a label a point and a share of 0 to 1")
    return LatentMap(points, prior, labels, latent, share)


def _points(plain: Any) -> NDArray[np.float64]:
    points = np.asarray(plain, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not 1 <= len(points) <= _MOST:
        raise ValueError(f"points of shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("a number that is not finite")
    return points


def picture(name: str, maps: Sequence[tuple[str, LatentMap]]) -> Picture | None:
    """A canvas for each training: draws of the prior in grey, codes as the numbers of their classes."""
    if not maps:
        return None

    def paint(figure: Figure) -> None:
        columns = min(len(maps), _COLUMNS)
        canvases = figure.subplots(-(-len(maps) // columns), columns, squeeze=False)
        for canvas, (title, held) in zip(canvases.flat, maps, strict=False):
            _paint(canvas, held)
            axes = (
                "the code itself" if held.share is None else f"two axes of {held.latent}, {held.share:.0%} of variance"
            )
            canvas.set_title(f"{textwrap.fill(title, _WRAP)}\n{axes}", fontsize=8)
        for canvas in list(canvases.flat)[len(maps) :]:
            canvas.set_axis_off()

    caption = (
        "Codes of test images, each drawn as the number of its class, over draws of the prior in grey. Codes of more "
        "than two dimensions are seen along the two principal axes of the test images' codes. A generative model "
        "draws an image from a grey point: where grey points lie and no codes do, the decoder has seen nothing; where "
        "codes lie and no grey point does, images are never drawn. Classes that keep apart are told by the code "
        "though no label was shown."
    )
    lines = -(-len(maps) // _COLUMNS)
    size = (3.1 * min(len(maps), _COLUMNS) + 0.3, 3.4 * lines + 0.2)
    data = Data(("model", "what", "class", "points (x, y)"), tuple(_told(maps)))
    return draw(name, "Where codes of test images lie", caption, size, paint, data=data)


def _told(maps: Sequence[tuple[str, LatentMap]]) -> Iterator[tuple[str, ...]]:
    for title, held in maps:
        labels = np.zeros(len(held.points), int) if held.labels is None else held.labels
        for label in sorted(set(labels.tolist())):
            points = held.points[labels == label]
            name = "–" if held.labels is None else str(label)
            yield title, "codes", name, " ".join(f"{x:.3g},{y:.3g}" for x, y in points)
        yield title, "prior", "–", " ".join(f"{x:.3g},{y:.3g}" for x, y in held.prior)


def _paint(canvas: Any, held: LatentMap) -> None:
    canvas.scatter(*held.prior.T, s=5, color=FAINT, alpha=0.35, linewidths=0)
    classes = [] if held.labels is None else sorted(set(held.labels.tolist()))
    if held.labels is None or len(classes) > _GLYPHS:
        canvas.scatter(*held.points.T, s=6, color=INK, alpha=0.7, linewidths=0)
    else:
        for index, label in enumerate(classes):
            own = held.points[held.labels == label]
            hue = _HUES[index % len(_HUES)]
            canvas.scatter(*own.T, s=26, marker=_glyph(str(label)), color=hue, alpha=0.9, linewidths=0)
    both = np.concatenate([held.points, held.prior])
    low, high = np.quantile(both, 0.002, axis=0), np.quantile(both, 0.998, axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-9) * 1.06
    canvas.set_xlim(middle[0] - half, middle[0] + half)
    canvas.set_ylim(middle[1] - half, middle[1] + half)
    canvas.set_aspect("equal")


@cache
def _glyph(text: str) -> Outline:
    """The outline of a text about the origin, as high as a marker."""
    outline = TextPath((0, 0), text, size=1)
    box = outline.get_extents()
    scale = 1 / max(box.height, math.ulp(1.0))
    middle = (box.x0 + box.width / 2, box.y0 + box.height / 2)
    moved = outline.transformed(Affine2D().translate(-middle[0], -middle[1]).scale(scale))
    return Outline(moved.vertices, moved.codes)
