"""Figures of scores: quality against time with its Pareto front, samplers over steps, likelihood by kind."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from bench.report.axes import pareto
from bench.report.numbers import KINDS, SIGNS, number, tick
from bench.report.rows import Row, Score, Sheet, likelihoods
from bench.report.style import COLOURS, FAINT, INK, Picture, colour, draw, label_points, marker

_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_SECONDS = FuncFormatter(lambda value, _: tick(value))
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


def over_steps(name: str, sheet: Sheet, time: bool) -> Picture | None:
    """FD of the draws that have steps, against the steps or against the time an image takes."""
    lines = _series(sheet, time)
    if not any(len(points) > 1 for points in lines.values()):
        return None
    what = "time an image in a large batch" if time else "steps"

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        _log_axes(canvas, _SECONDS if time else _PLAIN)
        styles = ("-", "--", "-.", ":")
        hues = [COLOURS[f] for f in ("diffusion", "gans", "autoregressive", "flows", "other", "autoencoders")]
        for i, (label, points) in enumerate(lines.items()):
            hue, shape = hues[i % len(hues)], "os^Dv*"[i % 6]
            xs, ys = [x for x, _ in points], [score.value for _, score in points]
            canvas.plot(xs, ys, styles[i % 4], marker=shape, color=hue, label=label, markersize=6)
            for x, score in points:
                _interval(canvas, x, score, hue)
        _floor_line(canvas, sheet)
        _log_ticks(canvas.yaxis)
        if time:
            _log_ticks(canvas.xaxis)
        else:
            canvas.set_xticks(sorted({x for points in lines.values() for x, _ in points}))
            canvas.xaxis.set_minor_formatter(NullFormatter())
            canvas.xaxis.set_minor_locator(LogLocator(subs=()))
        canvas.set_xlabel(what)
        canvas.set_ylabel(f"{sheet.quality}  (lower is better)")
        canvas.legend(loc="upper right")

    caption = (
        "Every line is one checkpoint, sampled in different ways: how far can the steps be cut before the FD rises? "
        "Ancestral sampling is the DDPM's own; DDIM with eta 0 is deterministic, with eta 1 as noisy as the DDPM's "
        "posterior. Bars are intervals over seeds; the dashed line is the floor."
    )
    if time:
        caption = "The same draws by what they cost: left is faster, down is better. " + _FLOOR_TOLD
    title = f"Samplers of one checkpoint: quality over {'time' if time else 'steps'}"
    return draw(name, title, caption, (6.4, 4.4), paint)


_FLOOR_TOLD = "The dashed line is the floor: real development images against the test split."


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
        canvas.set_yticks(ticks, names)
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
    return draw(name, "Likelihood by kind", caption, (6.4, 1.6 + 0.36 * len(bars)), paint)


def _by_value(pair: tuple[Row, Score]) -> float:
    return pair[1].value


def _timed(sheet: Sheet, metric: str | None, seconds: Callable[[float], float]) -> list[tuple[Row, float, Score]]:
    if sheet.quality is None or metric is None:
        return []
    return [
        (row, seconds(row.scores[metric].value), row.scores[sheet.quality])
        for row in sheet.models
        if metric in row.scores
        and sheet.quality in row.scores
        and row.scores[metric].value > 0
        and row.scores[sheet.quality].value > 0
    ]


def _against_time(
    name: str, title: str, what: str, sheet: Sheet, points: Sequence[tuple[Row, float, Score]]
) -> Picture | None:
    if not points:
        return None
    front = pareto([(seconds, score.value) for _, seconds, score in points])

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        _log_axes(canvas, _SECONDS)
        steps = [(points[i][1], points[i][2].value) for i in front]
        canvas.step(*zip(*steps, strict=True), where="post", color=FAINT, lw=1.2, ls=(0, (4, 2)), zorder=1)
        for row, seconds, score in points:
            hue = colour(row.model.family)
            _interval(canvas, seconds, score, hue)
            size = 70 if row.shown else 26
            canvas.scatter(
                [seconds],
                [score.value],
                s=size,
                c=hue,
                marker=marker(row.model.family),
                edgecolors="white",
                linewidths=0.7,
                zorder=3,
                alpha=1.0 if row.shown else 0.55,
            )
        _floor_line(canvas, sheet)
        canvas.margins(0.12)
        _log_ticks(canvas.xaxis)
        _log_ticks(canvas.yaxis)
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
        "Down and left is better, both axes are logarithmic. The dashed staircase is the Pareto front: nothing "
        "measured here is both faster and of lower FD. Small marks are further draws of the same checkpoints. "
        + _FLOOR_TOLD
    )
    return draw(name, title, caption, (6.4, 4.6), paint)


def _series(sheet: Sheet, time: bool) -> dict[str, list[tuple[float, Score]]]:
    """Points (steps or seconds, score) by sampler, eta and spacing, in order of steps."""
    lines: dict[str, list[tuple[float, float, Score]]] = defaultdict(list)
    several = len({row.title for row in sheet.rows if row.draw is not None and row.draw.steps is not None}) > 1
    for row in sheet.rows:
        steps = None if row.draw is None else row.draw.steps or row.value("nfe")
        rate, score = row.value(sheet.speed), row.scores.get(sheet.quality or "")
        if row.draw is None or row.lone or not steps or score is None or score.value <= 0 or (time and not rate):
            continue
        parts = row.draw.label().split(" ")
        label = " ".join(part for part in parts if not part.startswith("S="))
        if several:
            label = f"{row.title} {label}"
        x = 1 / rate if time and rate else steps
        lines[label.replace("ddim", "DDIM")].append((steps, x, score))
    return {label: [(x, s) for _, x, s in sorted(points, key=lambda p: p[0])] for label, points in lines.items()}


def _interval(canvas: Axes, x: float, score: Score, hue: str) -> None:
    """A bar from low to high; a reflected bootstrap interval need not contain the value itself."""
    if score.low is not None and score.high is not None and score.high > 0:
        canvas.plot([x, x], [max(score.low, 0.05 * score.value), score.high], color=hue, lw=1.1, alpha=0.8, zorder=2)


def _floor_line(canvas: Axes, sheet: Sheet) -> None:
    floor = None if sheet.floor is None else sheet.floor.value(sheet.quality)
    if floor is not None and floor > 0:
        canvas.axhline(floor, color=INK, lw=1, ls=(0, (2, 2)), zorder=1)
        canvas.text(
            1.0,
            floor,
            "real images",
            transform=canvas.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=8,
        )


def _log_axes(canvas: Axes, across: FuncFormatter) -> None:
    """Logarithmic axes without mathematical markup; call `_log_ticks` once all is painted."""
    canvas.set_xscale("log")
    canvas.set_yscale("log")
    canvas.xaxis.set_major_formatter(across)
    canvas.yaxis.set_major_formatter(_PLAIN)
    for axis in (canvas.xaxis, canvas.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _log_ticks(axis: Axis) -> None:
    """Enough labels on an axis that spans few decades: 1, 2, 5 of each, or evenly spaced ones."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < 0.7:
        axis.set_major_locator(MaxNLocator(5))
    elif decades < 2.2:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
