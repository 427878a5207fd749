"""Mode collapse over training: classes found, their divergence, precision and recall of images drawn meanwhile."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from baselines.errors import UserError
from bench.record import Artifact
from bench.report.artifacts import read_artifact
from bench.report.plots import PLAIN, log_ticks
from bench.report.steps_looks import FURTHER
from bench.report.style import INK, Picture, draw

SCORES = {
    "modes": "classes with an image",
    "mode_kl": "KL of the classes, nats",
    "precision": "precision",
    "recall": "recall",
}
_MOST = 10_000  # snapshots
_LEAST_KL = 1e-3  # on the logarithmic axis; less is drawn there


@dataclass(frozen=True)
class Course:
    """The scores of one training's snapshots, None where one is infinite, and of as many real images."""

    images: tuple[int, ...]  # training images seen, rising
    scores: Mapping[str, tuple[float | None, ...]]
    real: Mapping[str, float | None]
    samples: int


Held = Sequence[tuple[str, int, Course]]
"""(title, seed, course) of each training."""


def read_course(folder: Path, artifact: Artifact) -> Course:
    """JSON of `images`, `samples`, the four scores by snapshot, and `real`, the same four of real images.

    Raises:
        UserError: as `read_artifact`, and if the content is something else.
    """
    data = read_artifact(folder, artifact)
    try:
        plain: Any = json.loads(data)
        images = tuple(int(v) for v in plain["images"])
        scores = {name: tuple(map(_score, plain[name])) for name in SCORES}
        if not 1 <= len(images) <= _MOST or {len(values) for values in scores.values()} != {len(images)}:
            raise ValueError("scores of other snapshots")
        if images[0] <= 0 or any(b <= a for a, b in itertools.pairwise(images)):
            raise ValueError("snapshots that are not in their order")
        return Course(images, scores, {name: _score(plain["real"][name]) for name in SCORES}, int(plain["samples"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"artifact {artifact.path}: expected scores over training, got {error}") from error


def _score(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"a score of {number}")
    return number


def collapse(name: str, held: Held) -> Picture | None:
    """The four scores over the share of the budget that was done; a colour a model, a line a seed."""
    titles = list(dict.fromkeys(title for title, _, _ in held))
    if not any(len(course.images) > 1 for _, _, course in held):
        return None

    def paint(figure: Figure) -> None:
        grid = figure.subplots(2, 2, sharex=True)
        for canvas, (score, told) in zip(grid.flat, SCORES.items(), strict=True):
            named: set[str] = set()
            for title, _, course in held:
                points = [
                    (images / course.images[-1], max(value, _LEAST_KL) if score == "mode_kl" else value)
                    for images, value in zip(course.images, course.scores[score], strict=True)
                    if value is not None
                ]
                label = title if title not in named else "_nolegend_"
                named.add(title)
                hue = FURTHER[titles.index(title) % len(FURTHER)]
                dashes = ("-", "--", ":")[titles.index(title) // len(FURTHER) % 3]
                canvas.plot(
                    *(zip(*points, strict=True) if points else ((), ())), dashes, color=hue, lw=1.3, label=label
                )
            real = [value for *_, course in held if (value := course.real[score]) is not None]
            if real:
                canvas.axhline(sum(real) / len(real), color=INK, lw=1.1, ls=":", label="real images")
            canvas.set_title(told, fontsize=10)
            if score == "modes":
                canvas.yaxis.set_major_locator(MaxNLocator(integer=True))
            if score == "mode_kl":
                canvas.set_yscale("log")
                canvas.yaxis.set_major_formatter(PLAIN)
                canvas.yaxis.set_minor_formatter(NullFormatter())
                log_ticks(canvas.yaxis)
        for canvas in grid[-1]:
            canvas.set_xlabel("share of the training budget")
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)

    samples = sorted({course.samples for *_, course in held})
    caption = (
        f"{' or '.join(map(str, samples))} images drawn at each mark of the budget, of the same noise each time, by "
        "the averaged weights, against the validation split; a line a seed. A collapsed generator leaves classes "
        "out: few modes, a large KL, low recall, while precision may stay high. The dotted line is as many train "
        "images. Smaller sets read lower recall than the tables, and scores of them are comparable here alone."
    )
    return draw(name, "Mode collapse over training", caption, (6.4, 4.8 + 0.1 * len(titles)), paint)
