"""Learned against exact: what steps buy a trained network, beside what they buy a perfect one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from bench.report.drawn import Mark
from bench.report.exact_table import place
from bench.report.joined import Point, joined
from bench.report.names import way
from bench.report.plots import PLAIN, floor_line, log_ticks
from bench.report.rows import Row, Sheet
from bench.report.spoken import mark_at
from bench.report.steps import Line, by_calls, exact_metric, kind_of, study_of, usual
from bench.report.steps_looks import SPACINGS_TOLD, Look, legend, legend_height, looks_of
from bench.report.steps_plots import Drawn, Told, plot
from bench.report.style import Picture, draw


def exact_picture(name: str, sheet: Sheet) -> Picture | None:
    """Exact distances over steps, and beside them the same draws of a trained network where the sheet has some.

    None without two numbers of steps of one way to draw.
    """
    metric = exact_metric(sheet)
    exact = [] if metric is None else _drawn(_of_first(_exact(sheet, metric)), metric)
    if not any(len(points) > 1 for _, points in exact):
        return None
    assert metric is not None
    learned = _learned(sheet, {line.label for line, points in exact if len(points) > 1})
    looks = looks_of([line for line, _ in exact])

    def told(point: Point) -> Mark:
        return mark_at(point, f"S={point.x:g}", sheet)

    if learned:
        return _both(name, sheet, exact, learned, looks, told)
    return _alone(name, metric, exact, looks, told)


def _alone(name: str, metric: str, exact: Sequence[Drawn], looks: dict[str, Look], told: Told) -> Picture:
    marks: list[Mark] = []

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        _exact_axes(canvas, exact, looks, marks, told)
        legend(figure, canvas)

    caption = (
        "The error of the sampler alone, for a network without error: the Fréchet distance between Gaussian data and "
        f"its samples, computed and not drawn ({metric}). {SPACINGS_TOLD.capitalize()}."
    )
    size = (6.4, 4.4 + legend_height([line.label for line, _ in exact], 6.4))
    return draw(name, "Exact: what steps buy a perfect network", caption, size, paint, marks)


def _both(
    name: str,
    sheet: Sheet,
    exact: Sequence[Drawn],
    learned: Sequence[Drawn],
    looks: dict[str, Look],
    told: Told,
) -> Picture:
    shared, marks = {line.label for line, _ in learned}, list[Mark]()
    beside = [(line, points) for line, points in exact if line.label in shared]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharex=True)
        _exact_axes(left, beside, looks, marks, told)
        left.set_title("Exact denoiser of Gaussian data")
        right.set_title("Trained network")
        right.set_xscale("log")
        right.set_yscale("log")
        plot(right, learned, looks, marks, told)
        floor_line(right, sheet)
        right.set_ylabel(f"{sheet.quality} of samples  (lower is better)")
        _finish(right, {point.x for _, points in learned for point in points})
        _finish(left, {point.x for _, points in (*learned, *beside) for point in points})
        legend(figure, left)

    title = learned[0][1][0].row.title
    seeds = max(len(point.row.seeds) for _, points in learned for point in points)
    caption = (
        "Left: the error of the sampler alone, for a network without error. Right: the same draws of a trained network "
        f"({title}), {f'the mean of {seeds} seeds with its interval' if seeds > 1 else 'one seed'}, whose curve "
        "flattens where its own error outweighs the sampler's. The scales differ: pixels of Gaussian data against "
        "features of samples. Compare slopes, the order of the samplers and where a curve stops falling. The trained "
        f"network's draws may be clipped; the exact ones are not. {SPACINGS_TOLD.capitalize()}."
    )
    size = (9.6, 4.4 + legend_height(sorted(shared), 9.6))
    return draw(name, "Learned against exact: what steps buy", caption, size, paint, marks)


def _exact_axes(canvas: Axes, held: Sequence[Drawn], looks: dict[str, Look], marks: list[Mark], told: Told) -> None:
    canvas.set_xscale("log")
    canvas.set_yscale("log")
    plot(canvas, held, looks, marks, told)
    canvas.set_ylabel("exact Fréchet distance, pixels  (lower is better)")
    _finish(canvas, {point.x for _, points in held for point in points})


def _finish(canvas: Axes, steps: set[float]) -> None:
    canvas.set_xlabel("steps S")
    canvas.yaxis.set_major_formatter(PLAIN)
    canvas.yaxis.set_minor_formatter(NullFormatter())
    log_ticks(canvas.yaxis)
    ticks: list[float] = []
    for x in sorted(steps):
        if not ticks or x > 1.25 * ticks[-1]:
            ticks.append(x)
    canvas.xaxis.set_major_locator(FixedLocator(ticks))
    canvas.xaxis.set_major_formatter(FixedFormatter([f"{x:g}" for x in ticks]))
    canvas.xaxis.set_minor_locator(NullLocator())


def _exact(sheet: Sheet, metric: str) -> list[Row]:
    rows = [row for row in usual(sheet.rows, metric) if row.draw is not None and row.draw.steps is not None]
    return sorted(rows, key=place)


def _learned(sheet: Sheet, wanted: set[str]) -> list[Drawn]:
    """A trained checkpoint's lines among the wanted ones: the one that the sentences are about, else the first."""
    rows = [
        row
        for row in usual(sheet.rows, sheet.quality)
        if row.model.family == "diffusion" and not row.model.is_oracle and row.draw is not None and row.draw.steps
    ]
    study = study_of(sheet)
    titles = dict.fromkeys([study.title] if study is not None else [row.title for row in rows])
    for title in titles:
        mine = [row for row in rows if row.title == title and (row.value(sheet.quality) or 0) > 0]
        held = [pair for pair in _drawn(mine, sheet.quality or "") if pair[0].label in wanted and len(pair[1]) > 1]
        if held:
            return held
    return []


def _of_first(rows: Sequence[Row]) -> list[Row]:
    """The rows of the first model among them."""
    return [row for row in rows if row.title == rows[0].title]


def _drawn(rows: Iterable[Row], metric: str) -> list[Drawn]:
    """Lines over the steps S, by way to draw."""
    held: dict[str, list[tuple[float, Row]]] = defaultdict(list)
    for row in rows:
        assert row.draw is not None
        assert row.draw.steps is not None
        held[way(row.draw)].append((float(row.draw.steps), row))
    found = []
    for label, points in held.items():
        draw_ = points[0][1].draw
        assert draw_ is not None
        kind = kind_of(draw_) if draw_.sampler == "ddim" else None
        ordered = by_calls({x: (x, row) for x, row in reversed(points)}.values())
        found.append((Line(label, kind or label, draw_.spacing, ordered), joined(ordered, metric)))
    return found
