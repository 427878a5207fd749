"""Figures of scores: quality against time with its Pareto front, likelihood by kind."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bench.report.axes import axes_told, pareto
from bench.report.drawn import Data
from bench.report.labels import label_points
from bench.report.marks import odd_rows
from bench.report.numbers import KINDS, SIGNS, interval_text, number, score_text, tick
from bench.report.rows import Row, Score, Sheet, likelihoods
from bench.report.spoken import marks_of
from bench.report.style import FAINT, INK, Picture, colour, draw, marker

PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
SECONDS = FuncFormatter(lambda value, _: tick(value))
_HATCHES = {"exact": "", "upper_bound": "////", "estimate": "xx"}


def quality_against_latency(name: str, sheet: Sheet) -> Picture | None:
    """FD against the median time of one image at batch 1."""
    points = _timed(sheet, sheet.latency, lambda seconds: seconds)
    title = "Quality against latency, batch 1"
    return _against_time(name, title, "latency of one image, median", sheet, points)


def quality_against_throughput(name: str, sheet: Sheet) -> Picture | None:
    """FD against the time an image takes in a large batch."""
    points = _timed(sheet, sheet.speed, lambda rate: 1 / rate)
    title = "Quality against time an image, large batch"
    return _against_time(name, title, "time an image in a large batch", sheet, points)


FLOOR_TOLD = "The dotted line is the floor: real development images against the test split."


def likelihood_by_kind(name: str, sheet: Sheet) -> Picture | None:
    """Bars of bits/dim, grouped by what the numbers are."""
    chosen: dict[tuple[str, str], tuple[Row, Score]] = {}
    for row in sheet.models:
        for score in likelihoods(row):
            chosen.setdefault((row.title, score.metric), (row, score))
    groups = {kind: sorted((p for p in chosen.values() if p[1].kind == kind), key=_by_value) for kind in SIGNS}
    bars = [pair for kind in SIGNS for pair in groups[kind]]
    if not bars:
        return None
    several = {row.title for row, _ in bars if sum(other.title == row.title for other, _ in bars) > 1}

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        place, ticks, names = 0.0, [], []
        for kind in (kind for kind in SIGNS if groups[kind]):
            for row, score in groups[kind]:
                hue = colour(row.model.family)
                canvas.barh(place, score.value, 0.7, color=hue, alpha=0.8, hatch=_HATCHES[kind], edgecolor="white")
                text = f" {SIGNS[kind]} {number(score.value)}"
                if score.low is not None and score.high is not None:
                    canvas.plot([score.low, score.high], [place, place], color=INK, lw=1.4)
                end = max(score.value, score.high or score.value)
                canvas.text(end, place, text, va="center", ha="left", fontsize=9)
                ticks.append(place)
                names.append(row.title + (f" [{score.metric.split('[')[-1]}" if row.title in several else ""))
                place += 1
            place += 0.7
        canvas.set_yticks(ticks, [wrapped(text) for text in names], fontsize=8.5)
        canvas.invert_yaxis()
        canvas.margins(x=0.12)
        canvas.grid(axis="y", visible=False)
        canvas.set_xlabel("bits/dim of the test split  (lower is better)")
        canvas.legend(
            handles=[
                Patch(facecolor="#B6BDC6", edgecolor="white", hatch=_HATCHES[k], label=f"{SIGNS[k]}  {KINDS[k]}")
                for k in SIGNS
                if groups[k]
            ],
            loc="upper left",
            bbox_to_anchor=(0, -0.13 - 0.35 / len(bars)),
            ncols=3,
        )

    caption = (
        "Shorter is better, within a kind only: an exact value (=) is the model's own; an upper bound (≤) says that "
        "the model is at least this good; an estimate (≈) may lie on either side."
    )
    data = Data(
        ("model", "likelihood", "kind", "bits/dim", "interval"),
        tuple((row.title, s.metric, KINDS[s.kind or ""], score_text(s), interval_text(s)) for row, s in bars),
    )
    return draw(name, "Likelihood by kind", caption, (6.4, 1.6 + 0.36 * len(bars)), paint, data=data)


def wrapped(text: str, width: int = 26) -> str:
    """A label beside an axis, in lines: a long one would leave the axis no room."""
    return textwrap.fill(text.replace("=", "= "), width, break_long_words=False).replace("= ", "=")


def _by_value(pair: tuple[Row, Score]) -> float:
    return pair[1].value


def _timed(sheet: Sheet, metric: str | None, seconds: Callable[[float], float]) -> list[tuple[Row, float, Score]]:
    if sheet.quality is None or metric is None:
        return []
    if not axes_told(sheet):
        return []
    return [
        (row, seconds(row.scores[metric].value), row.scores[sheet.quality])
        for row in sheet.models
        if not row.model.is_oracle  # an exact denoiser's network costs what it may
        and metric in row.scores
        and sheet.quality in row.scores
        and row.scores[metric].value > 0
        and row.scores[sheet.quality].value > 0
    ]


def _against_time(
    name: str, title: str, what: str, sheet: Sheet, points: Sequence[tuple[Row, float, Score]]
) -> Picture | None:
    if not points:
        return None
    rows = [row for row, _, _ in points]
    odd = odd_rows(rows, [sheet.quality])
    fair = [(seconds, score.value) for row, seconds, score in points if id(row) not in odd]
    front = [fair[i] for i in pareto(fair)]

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        log_axes(canvas, SECONDS)
        if front:
            canvas.step(*zip(*front, strict=True), where="post", color=FAINT, lw=1.2, zorder=1)
        for number_, (row, seconds, score) in enumerate(points):
            hue = colour(row.model.family)
            interval(canvas, seconds, score, hue)
            size = 70 if row.shown else 26
            canvas.scatter(
                [seconds],
                [score.value],
                s=size,
                facecolors="white" if id(row) in odd else hue,
                marker=marker(row.model.family),
                edgecolors=hue if id(row) in odd else "white",
                linewidths=1.4 if id(row) in odd else 0.7,
                zorder=3,
                alpha=1.0 if row.shown else 0.55,
                gid=f"mark{number_}",
            )
        floor_line(canvas, sheet)
        canvas.margins(0.12)
        log_ticks(canvas.xaxis)
        log_ticks(canvas.yaxis)
        canvas.set_xlabel(f"{what}  (left is faster)")
        canvas.set_ylabel(f"{sheet.quality}  (lower is better)")
        named = [p for i, p in enumerate(points) if p[0].shown]
        label_points(
            canvas,
            [(x, s.value) for _, x, s in named],
            [r.short for r, _, _ in named],
            [5.0] * len(named),
            8.5,
        )

    caption = (
        "Down and left is better, both axes are logarithmic. The solid grey staircase is the Pareto front: nothing "
        "measured here is both faster and of lower FD. Small marks are further draws of the same checkpoints. "
        + FLOOR_TOLD
    )
    if odd:
        caption += " Hollow marks are of another protocol than most and take no part in the front; each says which."
    marks = marks_of(rows, sheet)
    data = Data(
        ("model", f"{what}, s", sheet.quality or "FD", "interval"),
        tuple((row.label, f"{seconds:.4g}", number(s.value), interval_text(s)) for row, seconds, s in points),
    )
    return draw(name, title, caption, (6.4, 4.6), paint, marks, data)


def interval(canvas: Axes, x: float, score: Score, hue: str) -> None:
    """A bar from low to high; a reflected bootstrap interval need not contain the value itself."""
    if score.low is not None and score.high is not None and score.high > 0:
        canvas.plot([x, x], [max(score.low, 0.05 * score.value), score.high], color=hue, lw=1.1, alpha=0.8, zorder=2)


def floor_line(canvas: Axes, sheet: Sheet, metric: str | None = None) -> None:
    """A dotted line where real images are by the metric (the sheet's quality metric), if that was measured."""
    floor = None if sheet.floor is None else sheet.floor.value(metric or sheet.quality)
    if floor is not None and floor > 0:
        canvas.axhline(floor, color=INK, lw=1.2, ls=":", zorder=1)
        canvas.text(
            1.0,
            floor,
            "real images",
            transform=canvas.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=8,
        )


def log_axes(canvas: Axes, across: FuncFormatter) -> None:
    """Logarithmic axes without mathematical markup; call `log_ticks` once all is painted."""
    canvas.set_xscale("log")
    canvas.set_yscale("log")
    canvas.xaxis.set_major_formatter(across)
    canvas.yaxis.set_major_formatter(PLAIN)
    for axis in (canvas.xaxis, canvas.yaxis):
        axis.set_minor_formatter(NullFormatter())


def log_ticks(axis: Axis) -> None:
    """Enough labels on an axis that spans few decades: 1, 2, 5 of each, or evenly spaced ones."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < 0.7:
        axis.set_major_locator(MaxNLocator(5))
    elif decades < 2.2:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
