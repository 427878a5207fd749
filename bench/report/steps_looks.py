"""How lines over steps look: a colour and a shape a kind, dashes a spacing, and legends that fit their figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.labels import text_width
from bench.report.steps import Line
from bench.report.style import INK

HUES = {"eta 0": "#0072B2", "eta 0.5": "#009E73", "eta 1": "#D55E00", "sigma-hat": "#CC79A7"}
SHAPES = {"eta 0": "o", "eta 0.5": "D", "eta 1": "s", "sigma-hat": "^"}
FURTHER = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B7280")
FURTHER_SHAPES = "vP*Xhp<"  # none of a kind's own
DASHES = {"uniform": "-", "trailing": "--", "quadratic": "-.", "log_snr": ":"}
SPACINGS_TOLD = (
    "solid lines are uniform timesteps, dashed ones trailing, dash-dotted ones quadratic, dotted ones log_snr"
)

_HANDLE = 56  # points beside a legend's text: the sample of the line and the gaps
_MARGIN = 12  # points of a figure's width that its legend leaves free


class Look(NamedTuple):
    """Colour, marker and line style."""

    hue: str
    shape: str
    dashes: str


def looks_of(every: Sequence[Line]) -> dict[str, Look]:
    """A colour and a shape a kind, dashes a spacing; where several checkpoints have lines, a look of its own a line."""
    plain = len({(line.kind, line.spacing) for line in every}) == len(every)
    looks, further = {}, 0
    for line in every:
        dashes = DASHES.get(line.spacing, ":")
        if plain and line.kind in HUES:
            looks[line.label] = Look(HUES[line.kind], SHAPES[line.kind], dashes)
        elif line.kind.endswith("T=S") and plain:
            looks[line.label] = Look(INK, "X", "-")
        else:
            at = further + 4 if plain else further
            turn = at + at // len(FURTHER)  # 49 pairs of a colour and a shape before one comes again
            looks[line.label] = Look(FURTHER[at % len(FURTHER)], FURTHER_SHAPES[turn % len(FURTHER_SHAPES)], dashes)
            further += 1
    return looks


def legend(figure: Figure, canvas: Axes) -> None:
    """All labels of a canvas below the figure, in as many columns as fit."""
    handles, labels = canvas.get_legend_handles_labels()
    ncols = columns(labels, figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower center", ncols=ncols, handlelength=3.2)


def columns(labels: Sequence[str], width: float) -> int:
    """How many columns of these labels stand side by side in a figure of this width in inches; at most three."""
    for count in (3, 2):
        tall = -(-len(labels) // count)
        filled = [labels[i : i + tall] for i in range(0, len(labels), tall or 1)]  # a legend is filled downwards
        if sum(max(text_width(label, 9) for label in held) + _HANDLE for held in filled) + _MARGIN < 72 * width:
            return count
    return 1


def legend_height(labels: Sequence[str], width: float) -> float:
    """The height of such a legend in inches."""
    return 0.19 * -(-len(labels) // columns(labels, width))
