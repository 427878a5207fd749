"""Whether the order of exact likelihoods that the literature reports shows in this run, and what each model was given.

On CIFAR-10 van den Oord et al. 2016 (arXiv:1601.06759, table 5) have Diagonal BiLSTM 3.00, Row LSTM 3.07 and PixelCNN
3.14 bits/dim; on statically binarised MNIST (their table 4) Diagonal BiLSTM and PixelCNN stand before MADE and NADE.
"""

from __future__ import annotations

from bench.report.numbers import number
from bench.report.rows import Row, Score, Sheet, likelihoods

PAIRS = (
    ("pixelrnn_diagonal", "pixelrnn_row"),
    ("pixelrnn_row", "pixelcnn"),
    ("pixelcnn", "nade"),
    ("pixelcnn", "made"),
)
"""Who is reported to have at most the bits of whom."""


def published_order(sheet: Sheet) -> str:
    """A sentence on the pairs that were measured here; empty where there are none."""
    shows, even, turned = [], [], []
    for better, worse in PAIRS:
        first, second = _best(sheet, better), _best(sheet, worse)
        if first is None or second is None:
            continue
        (row, score), (other, beside) = first, second
        if score.overlaps(beside, 0.0):
            sign = "≤" if score.value <= beside.value else ">"
            even.append(f"{row.title} {sign} {other.title} ({number(score.value)} and {number(beside.value)})")
        elif score.value < beside.value:
            shows.append(f"{row.title} < {other.title}")
        else:
            turned.append(
                f"{row.title} ({number(score.value)}; {_given(row)}) is behind {other.title} "
                f"({number(beside.value)}; {_given(other)})"
            )
    if not (shows or even or turned):
        return ""
    parts = [f"shows in {', '.join(shows)}"] if shows else []
    parts += [f"lies within the intervals in {', '.join(even)}"] if even else []
    parts += [f"does not show where {', '.join(turned)}, with budgets far below the papers'"] if turned else []
    return (
        "The published order of bits/dim, Diagonal BiLSTM ≤ Row LSTM ≤ PixelCNN < NADE and MADE, "
        f"{'; it '.join(parts)}."
    )


def _best(sheet: Sheet, name: str) -> tuple[Row, Score] | None:
    """The row of this model with the lowest exact bits/dim."""
    found = [(row, s) for row in sheet.rows if row.model.name == name for s in likelihoods(row) if s.kind == "exact"]
    return min(found, key=lambda pair: pair[1].value, default=None)


def _given(row: Row) -> str:
    """How long it trained."""
    images = row.records[0].cell.budget.images
    seconds = row.value("training_cpu_s")
    told = [] if images is None else [f"{images:,} images"]
    told += [] if seconds is None else [f"{number(seconds)} CPU s"]
    return " in ".join(told)
