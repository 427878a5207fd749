"""The clock: time an image over its network calls, by sampler."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.clock import Clock, clocks
from bench.report.drawn import Mark, tell
from bench.report.numbers import interval_text, number, score_text
from bench.report.rows import Row, Sheet
from bench.report.steps_looks import FURTHER, FURTHER_SHAPES, HUES, SHAPES, legend, legend_height
from bench.report.style import INK, Picture, draw

_WIDTH = 6.4
_STYLES = ("-", "--", "-.", ":")


def clock(name: str, sheet: Sheet) -> Picture | None:
    """Time an image over the network calls on linear axes with the fitted lines, and the few calls enlarged."""
    fitted = clocks(sheet)
    if not fitted:
        return None
    most = max(x for c in fitted for x, _ in c.points)
    few = sorted({x for c in fitted for x, _ in c.points if x <= most / 5})
    looks, marks = _looks(fitted), list[Mark]()

    def tells(row: Row, calls: float, seconds: float) -> Mark:
        score = row.scores[sheet.speed or ""]
        span = f" ({held})" if (held := interval_text(score)) else ""
        each = f"{calls:,g} network calls an image", f"{number(seconds / calls, 's')} a call"
        rate = f"images/s {score_text(score)}{span}"
        return Mark(row.label, (f"{number(seconds, 's')} an image", *each, rate), sheet.blocks.get(row.model.name, ""))

    def paint(figure: Figure) -> None:
        canvases = figure.subplots(1, 2 if len(few) > 2 else 1, squeeze=False)[0]
        for canvas, reach in zip(canvases, (most, few[-1] if few else most), strict=False):
            for i, one in enumerate(fitted):
                drawn = _timed(canvas, one, reach, looks, _STYLES[i % len(_STYLES)])
                for line, points in drawn:
                    tell(line, marks, [tells(row, x, y) for x, y, row in points])
            canvas.set_xlim(0, 1.08 * reach)
            canvas.set_ylim(bottom=0)
            canvas.set_xlabel("network calls (NFE)")
        canvases[0].set_ylabel("time an image in a large batch, ms")
        if len(canvases) > 1:
            canvases[0].set_title("all", fontsize=9)
            canvases[1].set_title("the fewest, enlarged", fontsize=9)
        legend(figure, canvases[0])

    told = "; ".join(
        f"{c.title}: {number(1e3 * c.slope)} ms a call, {number(1e3 * c.start)} ms at none, the point furthest from "
        f"the line off by {c.worst:.0%}"
        for c in fitted
    )
    caption = (
        "Each point is a draw with so many network calls, its mark the sampler; the line makes the sum of squared "
        f"relative errors least. {told}."
    )
    labels = [*looks, *(c.title for c in fitted)]
    return draw(
        name, "The clock: time over steps", caption, (_WIDTH, 3.4 + legend_height(labels, _WIDTH)), paint, marks
    )


def _looks(fitted: Sequence[Clock]) -> dict[str, tuple[str, str]]:
    """By sampler a colour and a shape: those of the other figures over steps where the sampler has some there."""
    looks: dict[str, tuple[str, str]] = {}
    for sampler in dict.fromkeys(name for c in fitted for name in c.samplers):
        kind = sampler.removeprefix("DDIM ")
        at = len(looks)
        own = HUES.get(kind, FURTHER[(at + 4) % len(FURTHER)]), SHAPES.get(kind, FURTHER_SHAPES[at % 7])
        looks[sampler] = own
    return looks


def _timed(
    canvas: Axes, one: Clock, reach: float, looks: dict[str, tuple[str, str]], dashes: str
) -> list[tuple[Line2D, list[tuple[float, float, Row]]]]:
    """The fitted line, and each sampler's points within reach: the marks drawn, and what they stand for."""
    found = []
    for sampler in dict.fromkeys(one.samplers):
        hue, shape = looks[sampler]
        points = [
            (x, y, row)
            for (x, y), row, name in zip(one.points, one.rows, one.samplers, strict=True)
            if name == sampler and x <= reach
        ]
        known = sampler in canvas.get_legend_handles_labels()[1]
        across, up = [x for x, *_ in points], [1e3 * y for _, y, _ in points]
        label = "_nolegend_" if known else sampler
        [line] = canvas.plot(across, up, ls="", marker=shape, color=hue, alpha=0.75, markersize=5, label=label)
        found.append((line, points))
    ends = (0.0, reach)
    canvas.plot(ends, [1e3 * (one.start + one.slope * x) for x in ends], dashes, color=INK, lw=1.1, label=one.title)
    return found
