"""Figures of draws over steps: quality against network calls and time, coverage, the clock, and the bound's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.report.artifacts import Band
from bench.report.numbers import number
from bench.report.plots import FLOOR_TOLD, PLAIN, SECONDS, floor_line, interval, log_axes, log_ticks
from bench.report.rows import Sheet
from bench.report.steps import Clock, Line, clocks, lines, usual
from bench.report.style import INK, Picture, draw

_HUES = {"eta 0": "#0072B2", "eta 0.5": "#009E73", "eta 1": "#D55E00", "sigma-hat": "#CC79A7"}
_SHAPES = {"eta 0": "o", "eta 0.5": "D", "eta 1": "s", "sigma-hat": "^"}
_FURTHER = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B7280")
_FURTHER_SHAPES = "vP*Xhp<"  # none of a kind's own
_DASHES = {"uniform": "-", "trailing": "--", "quadratic": ":"}
_CALLS = "network calls an image (NFE)"
_MANY = 120  # timesteps up to which a line of terms has markers


class _Look(NamedTuple):
    hue: str
    shape: str
    dashes: str


def pictures(slug: str, sheet: Sheet) -> list[Picture]:
    """All figures over steps; none where no checkpoint was drawn with several numbers of steps."""
    made = (over_steps(f"steps-{slug}", sheet, time=False), over_steps(f"steps-time-{slug}", sheet, time=True))
    more = (coverage_over_steps(f"steps-coverage-{slug}", sheet), clock(f"steps-clock-{slug}", sheet))
    return [picture for picture in (*made, *more) if picture is not None]


def over_steps(name: str, sheet: Sheet, time: bool) -> Picture | None:
    """The quality metric of every sampler, against the network calls or against the time an image takes."""
    held = _drawn(lines(sheet), sheet, sheet.quality, time)
    if not any(len(points) > 1 for _, points in held):
        return None
    assert sheet.quality is not None
    looks, metric = _looks([line for line, _ in held]), sheet.quality

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        log_axes(canvas, SECONDS if time else PLAIN)
        _plot(canvas, held, metric, looks)
        floor_line(canvas, sheet)
        log_ticks(canvas.yaxis)
        if time:
            log_ticks(canvas.xaxis)
        else:
            _at_calls(canvas, {x for _, points in held for x, _ in points})
        canvas.set_xlabel("time an image in a large batch  (left is faster)" if time else _CALLS)
        canvas.set_ylabel(f"{metric}  (lower is better)")
        _legend(figure, canvas)

    if time:
        title, caption = "Quality over time", "The same draws by what they cost: left is faster, down is better. "
        caption += FLOOR_TOLD
    else:
        title = "Quality over steps"
        caption = (
            "How far can the steps be cut before the FD rises? eta 0 is deterministic, eta 1 has DDPM's posterior "
            "variance, sigma-hat its larger one; solid lines are uniform timesteps, dashed ones trailing. Bars are "
            f"intervals over seeds (of one seed: its own). {FLOOR_TOLD}"
        )
        left = sum(metric in row.scores for line in lines(sheet) for _, row in line.rows)
        left -= sum(len(points) for _, points in held)
        caption += (
            f" {left} draw{'s' * (left != 1)} by another protocol, or with an FD of 0 or less, left out."
            if left
            else ""
        )
    return draw(name, title, caption, (6.4, 4.4 + _legend_height(held)), paint)


def coverage_over_steps(name: str, sheet: Sheet) -> Picture | None:
    """Coverage and recall over the network calls, a canvas each."""
    every = lines(sheet)
    panels = [(m, held) for m in (sheet.coverage, sheet.recall) if m and (held := _drawn(every, sheet, m, False))]
    panels = [(metric, held) for metric, held in panels if any(len(points) > 1 for _, points in held)]
    if not panels:
        return None
    looks = _looks(every)

    def paint(figure: Figure) -> None:
        canvases = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for canvas, (metric, held) in zip(canvases, panels, strict=True):
            canvas.set_xscale("log")
            canvas.xaxis.set_major_formatter(PLAIN)
            _plot(canvas, held, metric, looks)
            floor_line(canvas, sheet, metric)
            canvas.set_ylabel(f"{metric}\n(higher is better)")
        _at_calls(canvases[-1], {x for _, held in panels for _, points in held for x, _ in points})
        canvases[-1].set_xlabel(_CALLS)
        _legend(figure, canvases[0])

    caption = "Do few steps lose part of the data? " + FLOOR_TOLD
    size = (6.4, 1.0 + 2.2 * len(panels) + _legend_height(panels[0][1]))
    return draw(name, "Coverage and recall over steps", caption, size, paint)


def clock(name: str, sheet: Sheet) -> Picture | None:
    """Time an image over the network calls on linear axes with the fitted lines, and the few calls enlarged."""
    fitted = clocks(sheet)
    if not fitted:
        return None
    most = max(x for c in fitted for x, _ in c.points)
    few = sorted({x for c in fitted for x, _ in c.points if x <= most / 5})

    def paint(figure: Figure) -> None:
        canvases = figure.subplots(1, 2 if len(few) > 2 else 1, squeeze=False)[0]
        for canvas, reach in zip(canvases, (most, few[-1] if few else most), strict=False):
            for i, one in enumerate(fitted):
                _timed(canvas, one, reach, _FURTHER[i % len(_FURTHER)], _FURTHER_SHAPES[i % len(_FURTHER_SHAPES)])
            canvas.set_xlim(0, 1.08 * reach)
            canvas.set_ylim(bottom=0)
            canvas.set_xlabel(_CALLS if len(canvases) == 1 else "network calls (NFE)")
        canvases[0].set_ylabel("time an image in a large batch, ms")
        if len(canvases) > 1:
            canvases[0].set_title("all", fontsize=9)
            canvases[1].set_title("the fewest, enlarged", fontsize=9)
        figure.legend(*canvases[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    told = "; ".join(
        f"{c.title}: {number(1e3 * c.slope)} ms a call, {number(1e3 * c.start)} ms at none, the point furthest from "
        f"the line off by {c.worst:.0%}"
        for c in fitted
    )
    caption = (
        "Each point is a sampler with so many network calls; the line makes the sum of squared relative errors least. "
        f"{told}."
    )
    return draw(name, "The clock: time over steps", caption, (6.4, 3.4 + 0.19 * -(-len(fitted) // 2)), paint)


def terms(name: str, held: Sequence[tuple[str, Band]]) -> Picture | None:
    """The terms of the variational bound at every timestep, in bits/dim, a line a likelihood of a training.

    held: (label, terms), L_0 first.
    """
    if not any(v > 0 for _, band in held for v in band.mean):
        return None
    longest = max(len(band.mean) for _, band in held)
    shares = len({len(band.mean) for _, band in held}) > 1

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        canvas.set_yscale("log")
        canvas.yaxis.set_major_formatter(PLAIN)
        canvas.yaxis.set_minor_formatter(NullFormatter())
        for i, (label, band) in enumerate(held):
            hue, shape = _FURTHER[i % len(_FURTHER)], _FURTHER_SHAPES[i % len(_FURTHER_SHAPES)]
            unit = len(band.mean) if shares else 1
            points = [(t / unit, v, lo, hi) for t, (v, lo, hi) in enumerate(zip(*band, strict=True)) if v > 0]
            x, y, low, high = zip(*points, strict=True) if points else ((), (), (), ())
            marks = shape if len(band.mean) <= _MANY else ""
            canvas.plot(x, y, marker=marks, color=hue, label=label, lw=1.3, markersize=4)
            canvas.fill_between(x, [max(v, 1e-12) for v in low], high, color=hue, alpha=0.2, lw=0)
        values = [v for _, band in held for v in band.mean if v > 0]
        canvas.set_ylim(0.5 * min(values), 2 * max(values))
        log_ticks(canvas.yaxis)
        canvas.set_xlabel("timestep t / T" if shares else f"timestep t of 0 to {longest - 1}")
        canvas.set_ylabel("bits/dim of this term")
        canvas.legend(loc="upper right")

    caption = (
        "Where the bound is spent: L_0, the discrete decoder, stands at t = 0, at t > 0 the KL divergence of the "
        "reverse step from x_t to x_(t-1); a mean over test images with its 95 % interval, lowest seed. Logarithmic."
    )
    if any(v <= 0 for _, band in held for v in band.mean):
        caption += " Terms that are not above 0 are left out."
    if shares:
        caption += " Chains of different lengths share the axis: a term of a short chain does the work of many."
    return draw(name, "The bound by timestep", caption, (6.4, 4.2), paint)


def _drawn(
    every: Sequence[Line], sheet: Sheet, metric: str | None, time: bool
) -> list[tuple[Line, list[tuple[float, float]]]]:
    """The lines that have the metric, by its commonest protocol, with points (calls or seconds, index of the row)."""
    alike = {id(row) for row in usual(sheet.rows, metric)}
    found = []
    for line in every:
        points: list[tuple[float, float]] = []
        for i, (calls, row) in enumerate(line.rows):
            value, rate = row.value(metric) if id(row) in alike else None, row.value(sheet.speed)
            if value is not None and (value > 0 or metric != sheet.quality) and (not time or (rate and rate > 0)):
                points.append((1 / rate if time and rate else calls, i))
        if points:
            found.append((line, points))
    return found


def _plot(
    canvas: Axes,
    held: Sequence[tuple[Line, list[tuple[float, float]]]],
    metric: str,
    looks: dict[str, _Look],
) -> None:
    for line, points in held:
        look = looks[line.label]
        scores = [(x, line.rows[int(i)][1].scores[metric]) for x, i in points]
        face = look.hue if look.dashes == "-" else "white"
        canvas.plot(
            [x for x, _ in scores],
            [score.value for _, score in scores],
            look.dashes,
            marker=look.shape,
            color=look.hue,
            markerfacecolor=face,
            label=line.label,
            markersize=5.5,
            lw=1.6,
        )
        for x, score in scores:
            interval(canvas, x, score, look.hue)


def _looks(every: Sequence[Line]) -> dict[str, _Look]:
    """A colour and a shape a kind, dashes a spacing; where several checkpoints have lines, a look of its own a line."""
    plain = len({(line.kind, line.spacing) for line in every}) == len(every)
    looks, further = {}, 0
    for line in every:
        dashes = _DASHES.get(line.spacing, "-.")
        if plain and line.kind in _HUES:
            looks[line.label] = _Look(_HUES[line.kind], _SHAPES[line.kind], dashes)
        elif line.kind.endswith("T=S") and plain:
            looks[line.label] = _Look(INK, "X", "-.")
        else:
            at = further + 4 if plain else further
            turn = at + at // len(_FURTHER)  # 49 pairs of a colour and a shape before one comes again
            looks[line.label] = _Look(
                _FURTHER[at % len(_FURTHER)], _FURTHER_SHAPES[turn % len(_FURTHER_SHAPES)], dashes
            )
            further += 1
    return looks


def _timed(canvas: Axes, one: Clock, reach: float, hue: str, shape: str) -> None:
    points = [(x, 1e3 * y) for x, y in one.points if x <= reach]
    canvas.plot(*zip(*points, strict=True), ls="", marker=shape, color=hue, alpha=0.7, markersize=5, label=one.title)
    ends = (0.0, reach)
    canvas.plot(ends, [1e3 * (one.start + one.slope * x) for x in ends], color=hue, lw=1.1)


def _at_calls(canvas: Axes, calls: set[float]) -> None:
    """A tick at every number of calls, none that would touch its neighbour."""
    ticks: list[float] = []
    for x in sorted(calls):
        if not ticks or x > 1.25 * ticks[-1]:
            ticks.append(x)
    canvas.set_xticks(ticks)
    canvas.xaxis.set_minor_formatter(NullFormatter())
    canvas.xaxis.set_minor_locator(LogLocator(subs=()))


def _legend(figure: Figure, canvas: Axes) -> None:
    handles, labels = canvas.get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if longest < 26 else 2, handlelength=3.2)


def _legend_height(held: Sequence[tuple[Line, list[tuple[float, float]]]]) -> float:
    longest = max((len(line.label) for line, _ in held), default=0)
    return 0.19 * -(-len(held) // (3 if longest < 26 else 2))
