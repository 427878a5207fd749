"""Small multiples of the calibration study: a row of canvases a metric, a column a corruption, and one for N."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.calibration import Point, Study, title
from bench.report.numbers import number
from bench.report.rows import Score, base, variant
from bench.report.style import COLOURS, FAINT, INK, Picture, draw

_METRICS_A_PICTURE = 6  # so that a picture fits a screen
_HUES = ("diffusion", "gans", "autoregressive", "flows", "autoencoders", "other")
_WIDE = 30  # from this ratio of the largest to the smallest value on, the axis is logarithmic


def pictures(name: str, study: Study) -> list[Picture]:
    """All metrics against all corruptions, some metrics a picture."""
    parts = math.ceil(len(study.metrics) / _METRICS_A_PICTURE)
    size = math.ceil(len(study.metrics) / max(1, parts))
    chosen = [study.metrics[i : i + size] for i in range(0, len(study.metrics), size or 1)]
    return [_picture(f"{name}-{i}" if parts > 1 else name, study, part) for i, part in enumerate(chosen, start=1)]


def _picture(name: str, study: Study, metrics: Sequence[str]) -> Picture:
    kinds = list(study.kinds)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(metrics), len(kinds) + 1, squeeze=False, sharey="row", sharex="col")
        for canvases, metric in zip(grid, metrics, strict=True):
            floor = study.floor.scores.get(metric)
            scales = [study.levels(metric, kind) for kind in kinds]
            for canvas, points, hue in zip(canvases, scales, _HUES * len(kinds), strict=False):
                _paint(canvas, [Point(0.0, floor), *points], floor, COLOURS[hue], "none")
            _paint(canvases[-1], study.counts(metric), floor, FAINT, None)
            _scale(canvases[0], [p.score for points in scales for p in points] + [floor])
            canvases[0].set_ylabel(_label(metric, floor), fontsize=8.5)
        for canvas, kind in zip(grid[0], kinds, strict=False):
            canvas.set_title(title(kind)[0], fontsize=10)
        grid[0][-1].set_title("Fewer samples", fontsize=10)
        for canvas, text in zip(grid[-1], [*(title(kind)[1] for kind in kinds), "N"], strict=True):
            canvas.set_xlabel(text, fontsize=8.5)

    told = ", ".join(dict.fromkeys(base(metric) for metric in metrics))
    caption = (
        "Strength of the corruption grows to the right, the leftmost point is unspoilt; in the last column nothing is "
        "spoilt and N grows. The dashed line is the floor (unspoilt, all N), its band the floor's interval; bars are "
        "95 % intervals, which may lie off a biased value. A metric is of use where its points leave the band."
    )
    size = (1.95 * (len(kinds) + 1), 1.2 * len(metrics) + 0.9)
    return draw(name, f"Calibration on {study.dataset}: {told}", caption, size, paint)


def _paint(canvas: Axes, points: Sequence[Point], floor: Score | None, hue: str, first: str | None) -> None:
    """One metric along one corruption, at even distances; what could not be taken leaves a gap."""
    if floor is not None:
        canvas.axhline(floor.value, color=INK, lw=0.9, ls=(0, (2, 2)), zorder=1)
        if floor.bounds is not None:
            canvas.axhspan(*floor.bounds, color="#E8EBEF", lw=0, zorder=0)
    xs = range(len(points))
    values = [np.nan if p.score is None else p.score.value for p in points]
    canvas.plot(xs, values, "-o", color=hue, lw=1.3, ms=3.2, zorder=3)
    for x, point in zip(xs, points, strict=True):
        if point.score is not None and point.score.bounds is not None:
            canvas.plot([x, x], point.score.bounds, color=hue, lw=2.6, alpha=0.4, zorder=2, solid_capstyle="butt")
    names = [f"{point.level:g}" for point in points]
    names = names if first is None else [first, *names[1:]]
    canvas.set_xticks(list(xs), names, fontsize=7, rotation=45 if max(map(len, names)) > 3 else 0)
    canvas.tick_params(axis="y", labelsize=7)
    canvas.set_xlim(-0.4, len(points) - 0.6)
    canvas.grid(axis="x", visible=False)


def _scale(canvas: Axes, scores: Sequence[Score | None]) -> None:
    """A logarithmic axis for a wide range; linear about 0 where values are negative there."""
    values = [score.value for score in scores if score is not None]
    if not values:
        return
    least, most = min(values), max(map(abs, values))
    if least > 0 and most / least > _WIDE:
        ends = [b for s in scores if s is not None and s.bounds is not None for b in s.bounds]
        lows = [b for b in ends if b > 0.1 * least]
        canvas.set_yscale("log")
        canvas.set_ylim(0.7 * min([least, *lows]), 2 * most)
        canvas.yaxis.set_major_locator(LogLocator(numticks=5))
    elif least < 0 and most > _WIDE * -least:
        canvas.set_yscale("symlog", linthresh=-2 * least, linscale=0.7)
        canvas.set_ylim(top=2 * most)
        canvas.yaxis.set_major_locator(_symmetric(-2 * least, most))
    else:
        canvas.yaxis.set_major_locator(MaxNLocator(4))
    canvas.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, significant=2) if value else "0"))
    canvas.yaxis.set_minor_locator(NullLocator())


def _symmetric(linear: float, most: float) -> FixedLocator:
    """0 and some powers of ten beyond the linear part."""
    decades = range(math.ceil(math.log10(linear)), math.floor(math.log10(most)) + 1)
    step = max(1, math.ceil(len(decades) / 3))
    return FixedLocator([0.0, *(10.0**k for k in list(decades)[::step])])


def _label(metric: str, floor: Score | None) -> str:
    arrow = {"lower": " ↓", "higher": " ↑"}.get("" if floor is None else floor.better, "")
    return f"{base(metric)}{arrow}" + (f"\n{variant(metric)}" if variant(metric) else "")
