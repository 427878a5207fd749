"""Where figures put their texts: beside their own marks, and legends where no mark is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bench.report import curves
from bench.report.axes import drawable, endpoints
from bench.report.grouping import make_sheet
from bench.report.labels import label_points
from bench.report.source import ModelInfo, open_results
from bench.report.trilemma import paint_map

Make = Callable[..., Path]


@pytest.mark.parametrize(
    "points",
    [
        [(0.9955, 0.753), (0.9973, 0.733), (0.9955, 0.719), (0.99, 0.63), (0.986, 0.467)],
        [(0.5, 0.5), (0.498, 0.51), (0.495, 0.52)],
        [(0.5, 0.5), (0.45, 0.4), (0.43, 0.7)],
    ],
)
def test_no_text_stands_by_another_mark_than_its_own(points: list[tuple[float, float]]) -> None:
    figure = Figure(figsize=(6.4, 5.0))
    FigureCanvasAgg(figure)
    canvas = figure.subplots()
    canvas.set_xlim(points[0][0] - 0.09, points[0][0] + 0.01)
    canvas.set_ylim(points[0][1] - 0.4, points[0][1] + 0.3)
    canvas.scatter(*zip(*points, strict=True))
    texts = [f"DDPM (timesteps={10 * i}) · ancestral" for i in range(len(points))]
    label_points(canvas, points, texts, [5.0] * len(points))
    figure.draw_without_rendering()
    marks = [canvas.transData.transform(point) for point in points]
    placed = {text.get_text(): text for text in canvas.texts if isinstance(text, Annotation)}
    for i, text in enumerate(texts):
        box = placed[text].get_window_extent()
        gaps = [math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)) for x, y in marks]
        assert gaps[i] <= min(gaps) + 15, text  # pixels: about the height of a text


def test_the_maps_legend_covers_no_mark(make_results: Make) -> None:
    sheet = make_sheet(open_results(make_results()), "digits")
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    canvas = figure.subplots()
    paint_map(canvas, sheet, drawable(sheet.models, sheet, endpoints(sheet)))
    figure.draw_without_rendering()
    legend = canvas.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y1 < canvas.get_window_extent().y0
    assert legend.get_window_extent().y0 >= 0


def test_one_models_losses_are_drawn_at_the_size_of_several() -> None:
    rows = [{"images": float(i), "a/loss": 1.0 / i} for i in range(1, 5)]
    info = ModelInfo("vae", "VAE", "autoencoders")
    one, two = (curves.losses("x", [(info, f"VAE {i}", 0, rows) for i in range(n)]) for n in (1, 2))
    assert one is not None
    assert two is not None
    assert one.width == two.width
