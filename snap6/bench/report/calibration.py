"""The calibration study: how each metric reads real images that are spoilt by a known amount, or fewer of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.report.numbers import interval_text, score_text
from bench.report.rows import Row, Score, Sheet
from bench.report.tables import Column, Datum, Line, Table, column, hint, quality_order

KINDS = {
    "noise": ("Gaussian noise", "deviation, share of the range"),
    "blur": ("Blur", "deviation, pixels"),
    "dropped": ("Dropped classes", "classes left out"),
    "copies": ("Memorised copies", "different images"),
}
"""Kind of corruption -> its title, and what its level counts; of copies fewer are worse."""
_FEWER_IS_WORSE = frozenset({"copies"})


@dataclass(frozen=True)
class Point:
    """One metric at one level, or at one N."""

    level: float
    score: Score | None  # None: it could not be taken


@dataclass(frozen=True)
class Study:
    """A data set's rows of spoilt images, in order."""

    dataset: str
    floor: Row  # the same images unspoilt, as many as the others
    kinds: dict[str, tuple[Row, ...]]  # weakest level first
    sizes: tuple[Row, ...]  # unspoilt, fewest first; the floor is the last
    metrics: tuple[str, ...]

    def levels(self, metric: str, kind: str) -> list[Point]:
        """The metric over the levels of a kind, weakest first, without the floor."""
        return [Point(level_of(row), row.scores.get(metric)) for row in self.kinds[kind]]

    def counts(self, metric: str) -> list[Point]:
        """The metric of unspoilt images over N, the floor's N last."""
        return [Point(float(self.samples(row)), row.scores.get(metric)) for row in self.sizes]

    def samples(self, row: Row) -> int:
        """N of a row."""
        return row.samples or generated(row)


def study_of(sheet: Sheet) -> Study | None:
    """The study that a sheet's rows of spoilt images make; None where there is no row of unspoilt ones."""
    plain = [row for row in sheet.corrupted if row.draw is not None and not row.draw.options]
    floor = next((row for row in plain if row.samples is None), None)
    if floor is None:
        return None
    kinds: dict[str, list[Row]] = {}
    for row in sheet.corrupted:
        if row.draw is not None and row.draw.options and row.samples is None:
            kinds.setdefault(str(row.draw.options["kind"]), []).append(row)
    ordered = {
        kind: tuple(sorted(kinds[kind], key=level_of, reverse=kind in _FEWER_IS_WORSE))
        for kind in sorted(kinds, key=lambda kind: (list(KINDS).index(kind) if kind in KINDS else len(KINDS), kind))
    }
    fewer = sorted((row for row in plain if row is not floor), key=lambda row: row.samples or 0)
    found = {metric for row in sheet.corrupted for metric in _of_samples(row)}
    return Study(sheet.dataset, floor, ordered, (*fewer, floor), tuple(quality_order(found)))


def level_of(row: Row) -> float:
    """The level of the row's draw."""
    assert row.draw is not None
    return float(row.draw.options["level"] or 0)


def generated(row: Row) -> int:
    """How many images the row's metrics were taken of."""
    told = [json.loads(score.protocol).get("n_generated") for score in row.scores.values()]
    return max((int(n) for n in told if isinstance(n, int)), default=0)


def title(kind: str) -> tuple[str, str]:
    """A kind's title, and what its level counts."""
    return KINDS.get(kind, (kind, "level"))


def _of_samples(row: Row) -> Iterator[str]:
    """The row's metrics of samples, and not of the work of drawing them."""
    for record in row.records:
        timed = set(record.provenance.get("timed", ()))
        yield from (m.metric for m in record.measured if m.scope == "draw" and m.metric not in timed)


def badness(score: Score) -> float:
    """The value, turned so that higher is worse."""
    return -score.value if score.better == "higher" else score.value


def rank_correlation(points: Sequence[Point], floor: Score) -> float | None:
    """Spearman's correlation of a metric's badness with the strength of the corruption, the floor among the levels.

    Returns:
        1 where every stronger level reads worse; None where fewer than two levels were scored, or all read alike.
    """
    values = [badness(floor), *(badness(point.score) for point in points if point.score is not None)]
    if len(values) < 3 or min(values) == max(values):
        return None
    return float(np.corrcoef(np.arange(len(values)), pd.Series(values).rank())[0, 1])


def first_apart(points: Sequence[Point], floor: Score) -> Point | None:
    """The weakest level whose interval has no point in common with the floor's; None if there is none."""
    scored = (point for point in points if point.score is not None and point.score.bounds is not None)
    return next((p for p in scored if p.score is not None and not p.score.overlaps(floor)), None)


def enough(points: Sequence[Point]) -> float | None:
    """The smallest N from which on every interval holds what the largest N says; None if there is none.

    That is its value, or its interval's middle where the interval leaves the value out, as a biased one.
    """
    *fewer, largest = points
    if largest.score is None:
        return None
    said, within = largest.score.value, largest.score.bounds
    if within is not None and not within[0] <= said <= within[1]:
        said = (within[0] + within[1]) / 2
    found = None
    for point in reversed(fewer):
        bounds = None if point.score is None else point.score.bounds
        if bounds is None or not bounds[0] <= said <= bounds[1]:
            break
        found = point.level
    return found


def calibration_table(study: Study, sheet: Sheet) -> Table:
    """A line a metric: its floor, how it follows each corruption, and how many images it takes."""
    lines = []
    for metric in study.metrics:
        head = column(metric, sheet, ends=False, rows=sheet.corrupted)
        floor = study.floor.scores.get(metric)
        data = [Datum(" ".join((head.title, head.detail)), metric.lower(), hint=metric), _floor(floor)]
        data += [_followed(study.levels(metric, kind), floor) for kind in study.kinds]
        data.append(_enough(study.counts(metric)))
        lines.append(Line(tuple(data)))
    n = study.samples(study.floor)
    columns = (
        Column("Metric", numeric=False),
        Column("Floor", f"unspoilt, N = {n}"),
        *(Column(title(kind)[0], _span(study, kind)) for kind in study.kinds),
        Column("N it takes", f"to hold the value at N = {n}"),
    )
    return Table("calibration", "Is each metric monotone, and from where on?", _INTRO, columns, tuple(lines))


_INTRO = (
    "Under each corruption: Spearman's rank correlation of the metric, turned so that higher is worse, with the "
    "strength of the corruption, the unspoilt images among the levels. 1 is strictly monotone; a negative one says "
    "that the metric reads worse images as better, or, of one that has no better side, falls. Below it the weakest "
    "level whose 95 % interval lies apart from the floor's, 'as better' where it lies on the wrong side, 'lower' where "
    "none is wrong. The last column is the smallest N from which on every "
    "interval holds the value at the largest N (the middle of its interval where that leaves a biased value out); a "
    "metric without an interval has neither. Unspoilt images are all that are not the test split: where that is "
    "stratified, their classes' shares are as fixed as its own, and distances without bias read a little below 0."
)


def _span(study: Study, kind: str) -> str:
    levels = [level_of(row) for row in study.kinds[kind]]
    return f"{title(kind)[1]}: {levels[0]:g} to {levels[-1]:g}"


def _floor(score: Score | None) -> Datum:
    if score is None:
        return Datum("–")
    return Datum(score_text(score), score.value, interval_text(score), hint=hint(score))


def _followed(points: Sequence[Point], floor: Score | None) -> Datum:
    if floor is None:
        return Datum("–")
    correlation = rank_correlation(points, floor)
    text = "–" if correlation is None else f"{correlation + 0.0:.2f}"
    if floor.bounds is None or not any(p.score is not None and p.score.bounds is not None for p in points):
        return Datum(text, correlation, "no interval")
    apart = first_apart(points, floor)
    if apart is None or apart.score is None:
        return Datum(text, correlation, "never apart")
    lower = badness(apart.score) < badness(floor)
    wrong = (", lower" if floor.better == "none" else ", as better") if lower else ""
    return Datum(text, correlation, f"from {apart.level:g}{wrong}")


def _enough(points: Sequence[Point]) -> Datum:
    if not any(p.score is not None and p.score.bounds is not None for p in points):
        return Datum("–", None, "no interval")
    found = enough(points)
    return Datum("none", None) if found is None else Datum(f"{found:.0f}", found)


def verdicts(study: Study) -> list[str]:
    """In words: which metrics follow every corruption, and which do not follow one."""
    followed: list[str] = []
    strayed: dict[str, list[str]] = {}
    for metric in study.metrics:
        floor = study.floor.scores.get(metric)
        if floor is None:
            continue
        found = {kind: rank_correlation(study.levels(metric, kind), floor) for kind in study.kinds}
        bad = [title(kind)[0].lower() for kind, value in found.items() if value is None or value < _NEARLY]
        if bad:
            strayed.setdefault(", ".join(bad), []).append(metric)
        else:
            followed.append(metric)
    told = [f"{', '.join(followed)}: worse at almost every step of every corruption."] if followed else []
    return told + [f"Does not follow {kinds}: {', '.join(metrics)}." for kinds, metrics in strayed.items()]


_NEARLY = 0.9  # one exchange of neighbours among six levels is 0.94
