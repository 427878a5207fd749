"""Training curves: validation bits/dim of all models on one canvas, each model's own losses on small ones."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.report.numbers import number
from bench.report.source import ModelInfo
from bench.report.style import INK, Picture, colour, draw

Curve = Sequence[Mapping[str, float]]
VALIDATION = "val_bits_per_dim"
_NO_LOSS = frozenset({"images", "seconds", "step", "steps", "epoch", VALIDATION})
_COUNT = FuncFormatter(lambda value, _: _count(value))
_INKS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)


def _count(value: float) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def validation(name: str, curves: Sequence[tuple[ModelInfo, str, int, Curve]]) -> Picture | None:
    """bits/dim of the validation split over the images seen; a line a (model, seed)."""
    held = [(m, title, seed, _points(curve, VALIDATION)) for m, title, seed, curve in curves]
    held = [item for item in held if len(item[3]) > 1]
    if not held:
        return None
    titles = list(dict.fromkeys(title for _, title, _, _ in held))

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        named: set[str] = set()
        for model, title, _, points in held:
            style = ("-", "--", "-.", ":")[titles.index(title) % 4]
            label = title if title not in named else "_nolegend_"
            named.add(title)
            canvas.plot(*zip(*points, strict=True), ls=style, color=colour(model.family), label=label, alpha=0.85)
        last = [points[-1][1] for *_, points in held]
        highest = max(y for *_, points in held for _, y in points)
        canvas.set_ylim(top=min(highest, 2 * max(last)) * 1.03)
        canvas.xaxis.set_major_formatter(_COUNT)
        canvas.set_xlabel("training images seen")
        canvas.set_ylabel("bits/dim, validation split")
        canvas.legend(loc="upper right")

    caption = (
        "Lower is better; a line that turns up again overfits. One line a seed. The numbers are the models' own "
        "training criteria on the validation split, of different kinds: read each line by itself."
    )
    return draw(name, "Training: validation bits/dim", caption, (6.4, 4.2), paint)


def losses(name: str, curves: Sequence[tuple[ModelInfo, str, int, Curve]]) -> Picture | None:
    """Every loss and its parts, a small canvas a model, the lowest seed of each."""
    first: dict[str, tuple[ModelInfo, dict[str, list[tuple[float, float]]]]] = {}
    for model, title, _, curve in curves:
        parts = {key: points for key in loss_names(curve) if len(points := _points(curve, key)) > 1}
        if parts:
            first.setdefault(title, (model, parts))
    if not first:
        return None
    columns = 2  # one alone is as wide as one of two: the page scales all figures to one width
    lines = math.ceil(len(first) / columns)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, squeeze=False)
        for canvas in list(grid.flat)[len(first) :]:
            canvas.set_axis_off()
        for canvas, (title, (model, parts)) in zip(grid.flat, first.items(), strict=False):
            for i, (key, points) in enumerate(parts.items()):
                hue = colour(model.family) if i == 0 else _INKS[i % len(_INKS)]
                style = "-" if i == 0 else ("--", "-.", ":")[i % 3]
                canvas.plot(*zip(*points, strict=True), style, color=hue, lw=1.4, label=key)
            canvas.set_ylim(*_robust([y for points in parts.values() for _, y in points], len(parts)))
            canvas.set_title(textwrap.fill(title, 28, max_lines=2, placeholder="…"))  # as wide as its canvas
            canvas.xaxis.set_major_formatter(_COUNT)
            canvas.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            canvas.legend(loc="upper right", fontsize=7.5).set_in_layout(False)  # inside, however long its names
        figure.supxlabel("training images seen", fontsize=10)

    caption = (
        "Each model's own losses (phase/part), lowest seed. Scales differ and are not comparable between models; a "
        "GAN's losses need not fall. Outliers beyond the axis are cut off."
    )
    return draw(name, "Training: losses", caption, (3.2 * columns, 2.2 * lines + 0.4), paint)


def loss_names(curve: Curve) -> list[str]:
    """What a curve holds of the training itself, `phase/part`, in its order."""
    names = dict.fromkeys(key for row in curve for key in row)
    return [key for key in names if key not in _NO_LOSS]


def _points(curve: Curve, key: str) -> list[tuple[float, float]]:
    return [(row["images"], row[key]) for row in curve if key in row and "images" in row]


def _robust(values: Sequence[float], lines: int) -> tuple[float, float]:
    """Limits that hold the middle 98 % of the values, with room above for a legend of so many lines."""
    low, high = (float(v) for v in np.quantile(values, (0.01, 0.99)))
    span = (high - low) or abs(high) or 1.0
    legend = min(0.06 + 0.09 * lines, 0.6)  # of the canvas
    return low - 0.05 * span, high + 1.05 * span * legend / (1 - legend)
