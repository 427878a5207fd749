"""Charts that models make of their own workings, read with suspicion and drawn as figures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from baselines.errors import UserError
from bench.record import Artifact
from bench.report.artifacts import read_artifact
from bench.report.plots import PLAIN, log_ticks
from bench.report.steps_looks import FURTHER
from bench.report.style import Picture, draw

_LONGEST = {"title": 200, "caption": 2000, "label": 80}  # characters
_MOST_PANELS, _MOST_LINES, _MOST_POINTS = 12, 20, 10_000
_COLUMNS = 2


@dataclass(frozen=True)
class Curve:
    """A line, or marks where `marks`; as many finite y as x."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    marks: bool


@dataclass(frozen=True)
class Chart:
    """Lines in panels of equal axes, with words."""

    title: str
    caption: str
    x: str
    y: str
    panels: tuple[tuple[str, tuple[Curve, ...]], ...]  # (title, lines)
    log_y: bool


def read_chart(folder: Path, artifact: Artifact) -> Chart:
    """JSON of a model's chart: title, caption, x, y, log_y, and panels of a title and lines.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        plain: Any = json.loads(data)
        panels = tuple((_text(p["title"], "title"), tuple(map(_curve, p["lines"]))) for p in plain["panels"])
        if not 1 <= len(panels) <= _MOST_PANELS or not all(1 <= len(lines) <= _MOST_LINES for _, lines in panels):
            raise ValueError("too many panels or lines, or none")
        chart = Chart(
            _text(plain["title"], "title"),
            _text(plain["caption"], "caption"),
            _text(plain["x"], "label"),
            _text(plain["y"], "label"),
            panels,
            bool(plain["log_y"]),
        )
        if chart.log_y and not any(y > 0 for _, lines in panels for line in lines for y in line.y):
            raise ValueError("nothing above 0 for a logarithmic axis")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"artifact {artifact.path}: expected a chart with panels of lines, got {error}") from error
    return chart


def _curve(line: Any) -> Curve:
    x, y = (tuple(float(v) for v in line[name]) for name in ("x", "y"))
    if len(x) != len(y) or not 1 <= len(x) <= _MOST_POINTS:
        raise ValueError(f"{len(x)} x and {len(y)} y")
    if not all(map(math.isfinite, (*x, *y))):
        raise ValueError("a number that is not finite")
    return Curve(_text(line["label"], "label"), x, y, bool(line["marks"]))


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST[what]:
        raise ValueError(f"a {what} that is no text of at most {_LONGEST[what]} characters")
    return value


def pictures(name: str, held: Sequence[tuple[str, Chart]]) -> list[Picture]:
    """A figure of each (title of the training, its chart)."""
    return [_picture(f"{name}-{i}", title, chart) for i, (title, chart) in enumerate(held)]


def _picture(name: str, training: str, chart: Chart) -> Picture:
    columns = min(len(chart.panels), _COLUMNS)
    rows = -(-len(chart.panels) // columns)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for canvas in list(grid.flat)[len(chart.panels) :]:
            canvas.set_axis_off()
        for canvas, (title, lines) in zip(grid.flat, chart.panels, strict=False):
            _panel(canvas, title, lines, chart.log_y)
        for canvas in grid[-1]:  # not the figure's own label, which a legend outside of the canvases would cover
            canvas.set_xlabel(chart.x)
        for canvas in grid[:, 0]:
            canvas.set_ylabel(chart.y)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(labels) > 4 else len(labels))

    size = (6.4, 4.6) if len(chart.panels) == 1 else (3.2 * columns, 2.2 * rows + 0.7)
    return draw(name, f"{training}: {chart.title}", chart.caption, size, paint)


def _panel(canvas: Axes, title: str, lines: Sequence[Curve], log_y: bool) -> None:
    """Marks take the colour of the line before them."""
    hue, count = FURTHER[0], 0
    for line in lines:
        if not line.marks:
            hue, count = FURTHER[count % len(FURTHER)], count + 1
        points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y > 0 or not log_y]
        style = {"ls": "", "marker": "o", "ms": 4.5} if line.marks else {"ls": "-", "lw": 1.6}
        canvas.plot(*zip(*points, strict=True), color=hue, label=line.label, **style)  # type: ignore[arg-type]
    canvas.set_title(title)
    if log_y:
        canvas.set_yscale("log")
        canvas.yaxis.set_major_formatter(PLAIN)
        canvas.yaxis.set_minor_formatter(NullFormatter())
        log_ticks(canvas.yaxis)
