"""Learned against exact: what steps buy a trained network, beside what they buy a perfect one."""

from __future__ import annotations

from collections import defaultdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report.exact_table import exact_curves, way
from bench.report.rows import Row, Score, Sheet
from bench.report.style import COLOURS, INK, Picture, draw

_HUES = tuple(COLOURS[f] for f in ("diffusion", "gans", "autoregressive", "flows", "other", "autoencoders"))
_MARKERS, _STYLES = "os^Dv*P", ("-", "--", "-.", ":")
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

Curves = dict[str, dict[int, Score]]


def learned_against_exact(name: str, sheet: Sheet) -> Picture | None:
    """FD of a trained model's draws over steps, beside the exact distance of the same draws with an exact denoiser.

    Only ways to draw that both have; None without two steps of one of them.
    """
    exact, learned = exact_curves(sheet), _learned(sheet)
    shared = [label for label in learned if label in exact and min(len(learned[label]), len(exact[label])) > 1]
    if not shared:
        return None

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharex=True)
        left.set_title("Exact denoiser of Gaussian data")
        right.set_title("Trained network")
        for i, label in enumerate(shared):
            for canvas, curves in ((left, exact), (right, learned)):
                _line(canvas, label, curves[label], i)
        left.set_ylabel("exact Fréchet distance, pixels  (lower is better)")
        right.set_ylabel(f"{sheet.quality} of samples  (lower is better)")
        floor = None if sheet.floor is None else sheet.floor.value(sheet.quality)
        if floor is not None and floor > 0:
            right.axhline(floor, color=INK, lw=1, ls=(0, (2, 2)), zorder=1)
            across = right.get_yaxis_transform()
            right.text(1.0, floor, "real images", transform=across, ha="right", va="bottom", fontsize=8)
        for canvas in (left, right):
            canvas.set_xlabel("steps S")
            canvas.xaxis.set_major_formatter(_PLAIN)
            canvas.yaxis.set_major_formatter(_PLAIN)
            canvas.xaxis.set_minor_formatter(NullFormatter())
            canvas.yaxis.set_minor_formatter(NullFormatter())
            canvas.xaxis.set_major_locator(LogLocator())
            if canvas.get_ylim()[1] < 100 * canvas.get_ylim()[0]:
                canvas.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        right.legend(loc="upper right")

    caption = (
        "Left: the error of the sampler alone, for a network without error. Right: the same draws of a trained network,"
        " whose curve flattens where its own error outweighs the sampler's. The scales differ: pixels of Gaussian data "
        "against features of samples. Compare slopes, the order of the samplers and where a curve stops falling. The "
        "trained network's draws may be clipped; the exact ones are not."
    )
    return draw(name, "Learned against exact: what steps buy", caption, (9.6, 4.4), paint)


def _learned(sheet: Sheet) -> Curves:
    """FD by way to draw and steps, of the first trained model of the sheet that has such curves."""
    found: dict[str, Curves] = {}
    for row in sheet.rows:
        score = row.scores.get(sheet.quality or "")
        if row.draw is None or row.draw.steps is None or score is None or score.value <= 0 or not _trained(row):
            continue
        found.setdefault(row.title, defaultdict(dict))[way(row.draw)][row.draw.steps] = score
    return next(iter(found.values()), {})


def _trained(row: Row) -> bool:
    """Whether the row is a diffusion model that has learned weights; the oracles have none."""
    told = (m.protocol.get("subject", {}) for record in row.records for m in record.measured)
    return row.model.family == "diffusion" and any("weights" in subject for subject in told)


def _line(canvas: Axes, label: str, curve: dict[int, Score], i: int) -> None:
    points = sorted(curve.items())
    hue = _HUES[i % len(_HUES)]
    canvas.loglog(
        [steps for steps, _ in points],
        [score.value for _, score in points],
        _STYLES[i % len(_STYLES)],
        marker=_MARKERS[i % len(_MARKERS)],
        color=hue,
        label=label,
        markersize=5,
    )
    for steps, score in points:
        if score.bounds is not None and score.bounds[1] > 0:
            low = max(score.bounds[0], 0.05 * score.value)
            canvas.plot([steps, steps], [low, score.bounds[1]], color=hue, lw=1.1, alpha=0.8, zorder=2)
