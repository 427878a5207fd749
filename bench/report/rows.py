"""What tables and figures are made of: scores, rows (a model and one way to draw from it), sheets (a data set)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from baselines.types import Draw, Kind
from bench.record import Better, Measurement, Record
from bench.report.names import SAMPLERS, noise, way
from bench.report.source import ModelInfo
from bench.stats import mean_over_seeds

Spread = Literal["t", "range", "own", ""]
"""How an interval was made: Student's t over 3 or more seeds at 95 %; the range of 2 seeds; the single
measurement's own; none."""


EXACT = "fd_exact"
"""The Fréchet distance that an exact denoiser's draws have, computed and not sampled."""


@lru_cache(maxsize=10_000)
def base(metric: str) -> str:
    """`fd` of `fd[digits-cnn]`."""
    return metric.split("[", 1)[0]


def variant(metric: str) -> str:
    """`digits-cnn` of `fd[digits-cnn]`; empty if there is none."""
    return metric.split("[", 1)[1].rstrip("]") if "[" in metric else ""


@dataclass(frozen=True)
class Score:
    """One number of a row: the mean over its seeds."""

    metric: str
    value: float
    low: float | None
    high: float | None
    spread: Spread
    seeds: int
    unit: str
    better: Better
    kind: Kind | None
    protocol: str  # canonical JSON of all that must be equal for a comparison
    mixed: bool  # whether its own seeds were measured under different protocols
    note: str

    def overlaps(self, other: Score, half_width: float | None = None) -> bool:
        """Whether the two cannot be told apart: their 95 % intervals have a point in common.

        half_width: taken for a score without an interval; where there is none either, nothing tells the two apart.
        """
        bounds = [score.sure or score.around(half_width) for score in (self, other)]
        first, second = bounds
        if first is None or second is None:
            return True
        return first[0] <= second[1] and second[0] <= first[1]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, if it has one."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def sure(self) -> tuple[float, float] | None:
        """The 95 % interval, if it has one; of two seeds Student's t: their range holds the mean half of the time."""
        if self.spread != "range" or self.low is None or self.high is None:
            return self.bounds
        mean = mean_over_seeds((self.low, self.high))
        return None if mean.low is None or mean.high is None else (mean.low, mean.high)

    def around(self, half_width: float | None) -> tuple[float, float] | None:
        """An interval of a given width about the value."""
        return None if half_width is None else (self.value - half_width, self.value + half_width)


class Scores(Mapping[str, Score]):
    """Scores by metric, each put together when it is first asked for.

    Of a hundred thousand records a page shows few, and means with their intervals are most of the work.
    """

    def __init__(
        self,
        measured: Mapping[str, Sequence[Measurement]],
        make: Callable[[Sequence[Measurement]], Score],
        protocol: Callable[[Sequence[Measurement]], tuple[str, bool]],
    ) -> None:
        self._measured = dict(measured)
        self._make = make
        self._protocol = protocol
        self._made: dict[str, Score] = {}

    def __getitem__(self, metric: str) -> Score:
        if metric not in self._made:
            self._made[metric] = self._make(self._measured[metric])
        return self._made[metric]

    def __contains__(self, metric: object) -> bool:
        return metric in self._measured

    def __iter__(self) -> Iterator[str]:
        return iter(self._measured)

    def __len__(self) -> int:
        return len(self._measured)

    def value(self, metric: str) -> float:
        """The mean alone, where nothing else is asked for."""
        if metric in self._made:
            return self._made[metric].value
        held = self._measured[metric]
        return float(sum(m.value for m in held)) / len(held)

    def protocol(self, metric: str) -> str:
        """The protocol alone, where nothing else is asked for."""
        return self._made[metric].protocol if metric in self._made else self._protocol(self._measured[metric])[0]


@dataclass(frozen=True)
class Row:
    """A model and one way to draw from it, over all its seeds."""

    model: ModelInfo
    variant: str  # what sets this config apart from the model's others in the run; mostly empty
    draw: Draw | None  # None: trained, but nothing was drawn
    seeds: tuple[int, ...]
    scores: Mapping[str, Score]
    skipped: Mapping[str, str]  # metric -> reason
    records: tuple[Record, ...]  # of the draw (of the training if nothing was drawn), lowest seed first
    failed: int = 0  # cells that failed or timed out
    shown: bool = True  # stands for its sampler in the picture
    lone: bool = True  # the model's only row
    samples: int | None = None  # N where the draw has one of its own

    @property
    def label(self) -> str:
        """Full name: title, config where it matters, draw."""
        draw = "" if self.draw is None or self.draw.label() == "native" else f" · {way(self.draw, True, True)}"
        return self.title + draw + self._own_n

    @property
    def _own_n(self) -> str:
        return "" if self.samples is None else f" · N={self.samples}"

    @property
    def title(self) -> str:
        """The model's title, and its config where it has several."""
        return self.model.title + (f" ({self.variant})" if self.variant else "")

    @property
    def short(self) -> str:
        """Name for figures: the draw is told only where the model has several."""
        if self.draw is None or self.lone or self.draw.sampler == "native":
            return self.title + self._own_n
        steps = "" if self.draw.steps is None else f" {self.draw.steps}"
        added = f" {told}" if (told := noise(self.draw)) else ""
        sampler = SAMPLERS.get(self.draw.sampler, self.draw.sampler)
        return f"{self.title} · {sampler}{steps}{added}{self._own_n}"

    def value(self, metric: str | None) -> float | None:
        """The score's value, None if it was not taken."""
        if metric is None or metric not in self.scores:
            return None
        return self.scores.value(metric) if isinstance(self.scores, Scores) else self.scores[metric].value

    def protocol(self, metric: str) -> str:
        """The score's protocol; the metric must have been taken."""
        return self.scores.protocol(metric) if isinstance(self.scores, Scores) else self.scores[metric].protocol

    def mean_at(self, metric: str, seeds: Collection[int]) -> float | None:
        """The metric's mean over these seeds of its draws alone, None if one of them lacks it."""
        found = [m.value for r in self.records if r.cell.seed in seeds for m in r.measured if m.metric == metric]
        return sum(found) / len(found) if found and len(found) == len(seeds) else None


@dataclass(frozen=True)
class Sheet:
    """All rows of one data set, and the metrics that make the trilemma's axes there."""

    dataset: str
    rows: tuple[Row, ...]  # without floor and ceiling
    floor: Row | None  # real images of the development split
    ceiling: Row | None  # independent pixels
    quality: str | None  # metric names, None if no row has such a metric
    coverage: str | None
    recall: str | None
    speed: str | None
    latency: str | None
    left_out: frozenset[str] = frozenset()  # titles of trainings that figures have no room for
    blocks: Mapping[str, str] = field(default_factory=dict)  # model -> anchor of the block that tells of it
    corrupted: tuple[Row, ...] = ()  # spoilt real images, which are compared with nothing but the metrics' own floor

    @property
    def models(self) -> tuple[Row, ...]:
        """All rows but the real images."""
        return self.rows if self.ceiling is None else (*self.rows, self.ceiling)

    @property
    def all(self) -> tuple[Row, ...]:
        """Floor first, ceiling last."""
        return self.models if self.floor is None else (self.floor, *self.models)

    @property
    def references(self) -> tuple[Row, ...]:
        """The rows that a deep model must beat."""
        return tuple(r for r in self.models if r.model.is_reference)


def likelihoods(row: Row) -> list[Score]:
    """The row's bits/dim numbers, exact first, then bounds, then estimates, each from the lowest; no parts."""
    kinds = {"exact": 0, "upper_bound": 1, "estimate": 2}
    own = [row.scores[metric] for metric in row.scores if base(metric) == "bits_per_dim"]
    whole = [score for score in own if score.better != "none"]
    return sorted(whole, key=lambda s: (kinds.get(s.kind or "", 3), s.value))
