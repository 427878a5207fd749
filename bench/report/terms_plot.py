"""The terms of the variational bound at every timestep, as lines."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.report.artifacts import Band
from bench.report.plots import PLAIN, log_ticks
from bench.report.steps_looks import FURTHER, FURTHER_SHAPES
from bench.report.style import Picture, draw

_MANY = 120  # timesteps up to which a line of terms has markers


def terms(name: str, held: Sequence[tuple[str, Band]]) -> Picture | None:
    """The terms of the variational bound at every timestep, in bits/dim, a line a likelihood of a training.

    Both axes are logarithmic: nearly all of a long chain's bound lies in its first few timesteps.

    held: (label, terms), L_0 first.
    """
    if not any(v > 0 for _, band in held for v in band.mean):
        return None
    longest = max(len(band.mean) for _, band in held)
    shares = len({len(band.mean) for _, band in held}) > 1

    def paint(figure: Figure) -> None:
        canvas = figure.subplots()
        canvas.set_xscale("log")
        canvas.set_yscale("log")
        for axis in (canvas.xaxis, canvas.yaxis):
            axis.set_major_formatter(PLAIN)
            axis.set_minor_formatter(NullFormatter())
        for i, (label, band) in enumerate(held):
            hue, shape = FURTHER[i % len(FURTHER)], FURTHER_SHAPES[i % len(FURTHER_SHAPES)]
            unit = len(band.mean) if shares else 1
            points = [((t + 1) / unit, v, lo, hi) for t, (v, lo, hi) in enumerate(zip(*band, strict=True)) if v > 0]
            x, y, low, high = zip(*points, strict=True) if points else ((), (), (), ())
            marks = shape if len(band.mean) <= _MANY else ""
            canvas.plot(x, y, marker=marks, color=hue, label=label, lw=1.3, markersize=4)
            canvas.fill_between(x, [max(v, 1e-12) for v in low], high, color=hue, alpha=0.2, lw=0)
        values = [v for _, band in held for v in band.mean if v > 0]
        canvas.set_ylim(0.5 * min(values), 2 * max(values))
        log_ticks(canvas.yaxis)
        canvas.set_xlabel("(t + 1) / T" if shares else f"t + 1, timestep t of 0 to {longest - 1}")
        canvas.set_ylabel("bits/dim of this term")
        canvas.legend(loc="lower left")

    caption = (
        "Where the bound is spent: L_0, the discrete decoder, stands at t = 0, at t > 0 the KL divergence of the "
        "reverse step from x_t to x_(t-1); a mean over test images with its 95 % interval, lowest seed. Both axes are "
        f"logarithmic. {_nine_tenths(held)}"
    )
    if any(v <= 0 for _, band in held for v in band.mean):
        caption += " Terms that are not above 0 are left out."
    if shares:
        caption += " Chains of different lengths share the axis: a term of a short chain does the work of many."
    return draw(name, "The bound by timestep", caption, (6.4, 4.2), paint)


def _nine_tenths(held: Sequence[tuple[str, Band]]) -> str:
    """Within how many of its first timesteps each bound has nine tenths of itself."""
    told = []
    for label, band in held:
        whole, so_far, count = sum(max(v, 0.0) for v in band.mean), 0.0, 0
        for v in band.mean:
            if so_far >= 0.9 * whole:
                break
            so_far, count = so_far + max(v, 0.0), count + 1
        if whole > 0:
            told.append(f"{label} {count} of {len(band.mean)}")
    return f"Nine tenths of the bound lie in the first timesteps: {', '.join(told)}."
