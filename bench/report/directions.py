"""Two directions of one model: how fast it says how likely images are, and how fast it draws them."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.drawn import Data
from bench.report.numbers import factor_text, number
from bench.report.plots import PLAIN, log_ticks, wrapped
from bench.report.rows import Row, Sheet, likelihoods, variant
from bench.report.style import FAINT, Picture, colour, draw

_LEAST = 2  # models, for a picture that compares


def directions(name: str, sheet: Sheet) -> Picture | None:
    """Likelihoods and images a second in large batches, a line between the two for each model."""
    held = _held(sheet)
    if len(held) < _LEAST:
        return None

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        canvas.set_xscale("log")
        for place, (row, density, sampling) in enumerate(held):
            hue = colour(row.model.family)
            canvas.plot([density, sampling], [place, place], color=hue, lw=2.2, alpha=0.55, zorder=1)
            canvas.scatter([density], [place], s=52, facecolors="white", edgecolors=hue, linewidths=1.8, zorder=3)
            canvas.scatter([sampling], [place], s=52, color=hue, zorder=3)
            ratio = factor_text(max(density, sampling) / min(density, sampling))
            canvas.annotate(
                ratio,
                ((density * sampling) ** 0.5, place),
                (0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=FAINT,
            )
        canvas.set_yticks(range(len(held)), [wrapped(row.short) for row, *_ in held], fontsize=8)
        canvas.set_ylim(len(held) - 0.4, -0.8)
        canvas.margins(x=0.08)
        canvas.xaxis.set_major_formatter(PLAIN)
        log_ticks(canvas.xaxis)
        canvas.grid(axis="y", visible=False)
        canvas.set_xlabel("images a second in a large batch  (right is faster)")
        ring = {"marker": "o", "ls": "", "markersize": 7, "markeredgecolor": FAINT}
        handles = [
            Line2D([], [], markerfacecolor="white", markeredgewidth=1.8, label="likelihood of given images", **ring),  # type: ignore[arg-type]
            Line2D([], [], markerfacecolor=FAINT, label="drawing new images", **ring),  # type: ignore[arg-type]
        ]
        canvas.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.1 - 0.4 / len(held)), ncols=2)

    caption = (
        "The same network in its two directions. MAF knows a density in one pass and draws dimension by dimension; IAF "
        "the other way round; couplings (RealNVP, Glow) do both in one pass; autoregressive models draw pixel by "
        "pixel. The number says how far apart the two are. Likelihoods by one sample where they take several."
    )
    data = Data(
        ("model", "likelihoods/s", "images/s"),
        tuple((row.short, number(density), number(sampling)) for row, density, sampling in held),
    )
    return draw(name, "Two directions, two speeds", caption, (6.4, 1.5 + 0.42 * len(held)), paint, data=data)


def _held(sheet: Sheet) -> list[tuple[Row, float, float]]:
    """(row, likelihoods a second, images a second), fastest drawing first."""
    if sheet.speed is None:
        return []
    found = []
    density: dict[str, float] = {}
    for row in sheet.models:
        rates = {variant(m): s.value for m, s in row.scores.items() if m.startswith("likelihood_images_per_s[")}
        first = next((rates[v] for v in (variant(s.metric) for s in likelihoods(row)) if v in rates), None)
        rate = rates.get("dequantised", first)
        if rate is not None:
            density.setdefault(row.title, rate)
    for row in sheet.models:
        sampling = row.value(sheet.speed)
        if sampling and row.title in density and density[row.title] > 0 and row.model.family in _FAMILIES:
            found.append((row, density[row.title], sampling))
    return sorted(found, key=lambda held: -held[2])


_FAMILIES = ("autoregressive", "flows")
