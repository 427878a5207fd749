"""Figures of draws over steps: quality against network calls and against time, coverage and recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from bench.report.clock import pooled_s
from bench.report.clock_plot import clock
from bench.report.drawn import Mark, tell
from bench.report.joined import Point, joined
from bench.report.numbers import number
from bench.report.plots import FLOOR_TOLD, PLAIN, SECONDS, floor_line, interval, log_axes, log_ticks
from bench.report.rows import Row, Sheet
from bench.report.spoken import mark_at
from bench.report.steps import Line, lines, usual
from bench.report.steps_looks import SPACINGS_TOLD, Look, legend, legend_height, looks_of
from bench.report.style import Picture, draw

CALLS = "network calls an image (NFE)"
_WIDTH = 6.4
Drawn = tuple[Line, list[Point]]
Told = Callable[[Point], Mark]


def pictures(slug: str, sheet: Sheet) -> list[Picture]:
    """All figures over steps; none where no checkpoint was drawn with several numbers of steps."""
    made = (over_steps(f"steps-{slug}", sheet, time=False), over_steps(f"steps-time-{slug}", sheet, time=True))
    more = (coverage_over_steps(f"steps-coverage-{slug}", sheet), clock(f"steps-clock-{slug}", sheet))
    return [picture for picture in (*made, *more) if picture is not None]


def over_steps(name: str, sheet: Sheet, time: bool) -> Picture | None:
    """The quality metric of every sampler, against the network calls or against the time an image takes."""
    held = drawn(lines(sheet), sheet, sheet.quality, time)
    if not any(len(points) > 1 for _, points in held):
        return None
    looks, labels = looks_of([line for line, _ in held]), [line.label for line, _ in held]
    marks: list[Mark] = []

    def told(point: Point) -> Mark:
        return mark_at(point, f"{number(point.x, 's')} an image" if time else _calls(point), sheet)

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        log_axes(canvas, SECONDS if time else PLAIN)
        plot(canvas, held, looks, marks, told)
        floor_line(canvas, sheet)
        log_ticks(canvas.yaxis)
        if time:
            log_ticks(canvas.xaxis)
        else:
            at_calls(canvas, [point.x for _, points in held for point in points])
        canvas.set_xlabel("time an image in a large batch  (left is faster)" if time else CALLS)
        canvas.set_ylabel(f"{sheet.quality}  (lower is better)")
        legend(figure, canvas)

    title = "Quality over time" if time else "Quality over steps"
    caption = _time_caption(sheet, held) if time else _steps_caption(sheet, held)
    return draw(name, title, caption, (_WIDTH, 4.4 + legend_height(labels, _WIDTH)), paint, marks)


def _calls(point: Point) -> str:
    return f"{point.x:,g} network calls an image"


def _steps_caption(sheet: Sheet, held: Sequence[Drawn]) -> str:
    caption = (
        "How far can the steps be cut before the FD rises? eta 0 is deterministic, eta 1 has DDPM's posterior "
        f"variance, sigma-hat its larger one; {SPACINGS_TOLD}. Bars are intervals over seeds (of one seed: its own). "
        f"{FLOOR_TOLD}{_odd_told(held)}"
    )
    left = sum((sheet.quality or "") in row.scores for line in lines(sheet) for _, row in line.rows)
    left -= sum(len(points) for _, points in held)
    if left:
        caption += f" {left} draw{'s' * (left != 1)} by another protocol, or with an FD of 0 or less, left out."
    return caption


def _time_caption(sheet: Sheet, held: Sequence[Drawn]) -> str:
    caption = "The same draws by what they cost: left is faster, down is better. "
    pooled = pooled_s(sheet).keys() & {row.title for line, _ in held for _, row in line.rows}
    if pooled:
        caption += (
            f"While {', '.join(sorted(pooled))} was timed the machine was not steady: times there are network calls "
            "times the median time of a call over all timed draws of the same network; the table of costs has each as "
            "it was taken. "
        )
    return caption + FLOOR_TOLD + _odd_told(held)


def _odd_told(held: Sequence[Drawn]) -> str:
    if not any(point.odd for _, points in held for point in points):
        return ""
    return " A line joins means over the same seeds; a mark beside it with a number of seeds is of fewer."


def coverage_over_steps(name: str, sheet: Sheet) -> Picture | None:
    """Coverage and recall over the network calls, a canvas each."""
    every = lines(sheet)
    panels = [(m, held) for m in (sheet.coverage, sheet.recall) if m and (held := drawn(every, sheet, m, False))]
    panels = [(metric, held) for metric, held in panels if any(len(points) > 1 for _, points in held)]
    if not panels:
        return None
    looks, marks = looks_of(every), list[Mark]()

    def paint(figure: Figure) -> None:
        canvases = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for canvas, (metric, held) in zip(canvases, panels, strict=True):
            canvas.set_xscale("log")
            canvas.xaxis.set_major_formatter(PLAIN)
            plot(canvas, held, looks, marks, lambda point: mark_at(point, _calls(point), sheet))
            floor_line(canvas, sheet, metric)
            canvas.set_ylabel(f"{metric}\n(higher is better)")
        at_calls(canvases[-1], [point.x for _, held in panels for _, points in held for point in points])
        canvases[-1].set_xlabel(CALLS)
        legend(figure, canvases[0])

    caption = (
        f"Do few steps lose part of the data? {FLOOR_TOLD}{_odd_told([pair for _, held in panels for pair in held])}"
    )
    labels = [line.label for line, _ in panels[0][1]]
    size = (_WIDTH, 1.0 + 2.2 * len(panels) + legend_height(labels, _WIDTH))
    return draw(name, "Coverage and recall over steps", caption, size, paint, marks)


def drawn(every: Sequence[Line], sheet: Sheet, metric: str | None, time: bool) -> list[Drawn]:
    """The lines that have the metric, by its commonest protocol, with points over the calls or the seconds."""
    alike, pooled = {id(row) for row in usual(sheet.rows, metric)}, pooled_s(sheet)
    found = []
    for line in every:
        places: list[tuple[float, Row]] = []
        for calls, row in line.rows:
            value = row.value(metric) if id(row) in alike else None
            place = _seconds(row, sheet, pooled) if time else calls
            if value is not None and (value > 0 or metric != sheet.quality) and place is not None:
                places.append((place, row))
        if places and metric is not None:
            found.append((line, joined(places, metric)))
    return found


def _seconds(row: Row, sheet: Sheet, pooled: dict[str, float]) -> float | None:
    """An image's time: as measured, or by the time of a call that all draws of the network have in common."""
    rate, calls = row.value(sheet.speed), row.value("nfe")
    if not rate or rate <= 0:
        return None
    return calls * pooled[row.title] if calls and row.title in pooled else 1 / rate


def plot(canvas: Axes, held: Sequence[Drawn], looks: dict[str, Look], marks: list[Mark], told: Told) -> None:
    """Each line with its points and bars; odd points stand alone with their number of seeds.

    marks: what is told joins it, a mark a point.
    """
    for line, points in held:
        look = looks[line.label]
        face = look.hue if look.dashes == "-" else "white"
        style = {"marker": look.shape, "color": look.hue, "markerfacecolor": face, "markersize": 5.5, "lw": 1.6}
        own = [point for point in points if not point.odd]
        across, up = [point.x for point in own], [point.score.value for point in own]
        [drawn_] = canvas.plot(across, up, look.dashes, label=line.label, **style)  # type: ignore[arg-type]
        tell(drawn_, marks, [told(point) for point in own])
        for point in points:
            if point.odd:
                [alone] = canvas.plot([point.x], [point.score.value], ls="", **style)  # type: ignore[arg-type]
                tell(alone, marks, [told(point)])
            interval(canvas, point.x, point.score, look.hue)
    _tell_odd(canvas, held)


def _tell_odd(canvas: Axes, held: Sequence[Drawn]) -> None:
    """`1 seed` once above the odd points of a place."""
    odd = [point for _, points in held for point in points if point.odd]
    for x in sorted({point.x for point in odd}):
        here = [point for point in odd if point.x == x]
        top = max(max(point.score.value, point.score.high or 0.0) for point in here)
        canvas.annotate(
            here[0].told, (x, top), (0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=8
        )


def at_calls(canvas: Axes, calls: Iterable[float]) -> None:
    """A tick at every number of calls, none that would touch its neighbour; those of most points go first."""
    ticks: list[float] = []
    for x, _ in sorted(Counter(calls).items(), key=lambda held: (-held[1], held[0])):
        if all(max(x, tick) > 1.25 * min(x, tick) for tick in ticks):
            ticks.append(x)
    canvas.set_xticks(sorted(ticks))
    canvas.xaxis.set_minor_formatter(NullFormatter())
    canvas.xaxis.set_minor_locator(LogLocator(subs=()))
