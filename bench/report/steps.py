"""What do steps buy? Draws of diffusion checkpoints by sampler and number of steps, compared seed by seed."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from baselines.types import Draw
from bench.report.marks import commonest_protocol
from bench.report.numbers import interval_text, number
from bench.report.rows import Row, Score, Sheet
from bench.report.tables import Column, Datum, Table, hint
from bench.report.tables import Line as TableLine
from bench.stats import mean_over_seeds

SIGMA_HAT = "sigma-hat"
TRAINED = "DDPM trained with T = S"


@dataclass(frozen=True)
class Line:
    """The draws of one checkpoint that differ in their steps alone, by rising number of network calls."""

    label: str  # such as `DDIM eta 0, trailing`
    kind: str  # eta 0, eta 0.5, sigma-hat, ...: what has a colour
    spacing: str
    rows: tuple[tuple[float, Row], ...]  # (network calls an image, row)


class Ratio(NamedTuple):
    """One row's metric over another's: the geometric mean over the seeds that both have, with its interval.

    Three or more seeds: Student's t on the logarithms, at 95 %. Two: their range. One: from the two scores' own
    intervals, if they have some.
    """

    value: float
    low: float | None
    high: float | None
    seeds: int

    @property
    def above(self) -> bool:
        """Whether it is above 1 beyond doubt."""
        return self.low is not None and self.low > 1

    @property
    def below(self) -> bool:
        """Whether it is below 1 beyond doubt."""
        return self.high is not None and self.high < 1

    def text(self) -> str:
        """`1.22× [1.10 – 1.35]`."""
        span = "" if self.low is None or self.high is None else f" [{number(self.low)} – {number(self.high)}]"
        return f"{number(self.value)}×{span}"


@dataclass(frozen=True)
class Study:
    """One checkpoint's draws by (kind, spacing) and steps, and the models that were trained with T = S."""

    title: str
    timesteps: int | None  # T
    quality: str
    draws: Mapping[tuple[str, str], Mapping[int, Row]]
    trained: Mapping[int, Row]  # by T


class Clock(NamedTuple):
    """Time an image = start + slope * network calls, fitted by relative least squares."""

    title: str
    points: tuple[tuple[float, float], ...]  # (network calls, seconds an image)
    start: float  # seconds
    slope: float  # seconds a call
    worst: float  # the largest distance of a point from the line, as a fraction of its own time
    power: tuple[float, float, float]  # b of time ~ calls^b with its 95 % interval: (b, low, high)


def timesteps_of(row: Row) -> int | None:
    """T of the row's training, where its config has one."""
    value = row.records[0].cell.config.get("timesteps") if row.records else None
    return value if isinstance(value, int) and value > 0 else None


def steps_of(row: Row) -> int | None:
    """S of the row's draw: as asked for, else all T."""
    return None if row.draw is None else row.draw.steps or timesteps_of(row)


def kind_of(draw: Draw) -> str | None:
    """What sets a sampler of one network call a step apart; None for other samplers and unusual settings.

    DDPM's posterior variance is eta 1, its larger one is sigma-hat.
    """
    if draw.options or not draw.clip:
        return None
    if draw.sampler == "ddim" and draw.variance is None:
        return f"eta {draw.eta:g}"
    if draw.sampler == "ddim" and draw.variance == "sigma_hat":
        return SIGMA_HAT
    if draw.sampler in ("ddpm", "native"):
        return {None: "eta 1", "beta_tilde": "eta 1", "beta": SIGMA_HAT}.get(draw.variance)
    return None


def lines(sheet: Sheet) -> list[Line]:
    """Every line over steps of a data set; full-chain draws of models trained with several T make a line of theirs."""
    trained = _trained(sheet)
    beside = {id(row) for rows in trained.values() for row in rows.values()}
    held: dict[tuple[str, str], list[tuple[float, Row]]] = defaultdict(list)
    for row in sheet.rows:
        calls = row.value("nfe") or steps_of(row)
        if row.draw is not None and not row.lone and calls and (row.draw.steps or row.draw.sampler != "native"):
            held[row.title, _label(row.draw)].append((float(calls), row))
    alone = {key for key, points in held.items() if all(id(row) in beside for _, row in points)}
    several = len({title for title, _ in held.keys() - alone}) > 1
    found = []
    for (title, label), points in held.items():
        if (title, label) in alone:
            continue
        draw = points[0][1].draw
        assert draw is not None
        name = f"{title} {label}" if several else label
        kind = kind_of(draw) if draw.sampler == "ddim" else None  # DDPM's own draws are told apart from eta 1
        found.append(Line(name, kind or label, draw.spacing, _by_calls(points)))
    for name, rows in trained.items():
        title = next(iter(rows.values())).model.title
        label = TRAINED if len(trained) == 1 else f"{title} trained with T = S"
        found.append(Line(label, f"{name} T=S", "uniform", _by_calls([(float(t), row) for t, row in rows.items()])))
    return found


def study_of(sheet: Sheet) -> Study | None:
    """The checkpoint with the most DDIM draws of eta 0; None if there are fewer than two."""
    if sheet.quality is None:
        return None
    checkpoints: dict[str, dict[tuple[str, str], dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in sorted(sheet.rows, key=lambda r: r.draw is None or r.draw.sampler != "ddim"):  # DDIM's own first
        kind, steps = None if row.draw is None else kind_of(row.draw), steps_of(row)
        if row.draw is not None and kind is not None and steps is not None and (row.value(sheet.quality) or 0) > 0:
            checkpoints[row.title][kind, row.draw.spacing].setdefault(steps, row)
    sizes = {title: len(draws.get(("eta 0", "uniform"), ())) for title, draws in checkpoints.items()}
    title = max(sizes, key=lambda t: sizes[t], default=None)
    if title is None or sizes[title] < 2:
        return None
    any_row = next(row for rows in checkpoints[title].values() for row in rows.values())
    trained = _trained(sheet).get(any_row.model.name, {})
    others = {t: row for t, row in trained.items() if row.title != title and (row.value(sheet.quality) or 0) > 0}
    draws = {key: dict(sorted(rows.items())) for key, rows in checkpoints[title].items()}
    return Study(title, timesteps_of(any_row), sheet.quality, draws, others)


def ratio(row: Row, other: Row, metric: str) -> Ratio | None:
    """row's metric over other's, by the seeds that both have.

    None where they share none, a value is not above 0, or the two were measured under different protocols.
    """
    if metric not in row.scores or metric not in other.scores:
        return None
    if row.scores[metric].protocol != other.scores[metric].protocol:
        return None
    ours, theirs = by_seed(row, metric), by_seed(other, metric)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds or min(*(ours[s] for s in seeds), *(theirs[s] for s in seeds), math.inf) <= 0:
        return None
    logs = [math.log(ours[s] / theirs[s]) for s in seeds]
    mean = mean_over_seeds(logs)
    if len(seeds) == 1:
        return Ratio(math.exp(mean.value), *_own(row, other, metric, seeds[0]), 1)
    if len(seeds) == 2:
        return Ratio(math.exp(mean.value), math.exp(min(logs)), math.exp(max(logs)), 2)
    assert mean.low is not None
    assert mean.high is not None
    return Ratio(math.exp(mean.value), math.exp(mean.low), math.exp(mean.high), len(seeds))


def by_seed(row: Row, metric: str) -> dict[int, float]:
    """The metric of each seed's draw."""
    return {r.cell.seed: m.value for r in row.records for m in r.measured if m.metric == metric}


def usual(rows: Iterable[Row], metric: str | None) -> list[Row]:
    """The rows that have the metric, by the protocol that most of them have."""
    held = [row for row in rows if metric is not None and metric in row.scores]
    protocol = commonest_protocol(row.scores[metric or ""] for row in held)
    return [row for row in held if row.scores[metric or ""].protocol == protocol]


def clocks(sheet: Sheet) -> list[Clock]:
    """Time over network calls of each checkpoint that has three numbers of steps or more."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in usual(sheet.rows, sheet.speed):
        rate, calls = row.value(sheet.speed), row.value("nfe")
        if row.draw is not None and rate and calls and rate > 0 and calls > 0:
            points[row.title].append((calls, 1 / rate))
    return [fit(title, held) for title, held in points.items() if len({x for x, _ in held}) > 2]


def fit(title: str, points: Sequence[tuple[float, float]]) -> Clock:
    """The line through (calls, seconds) that makes the sum of squared relative errors least."""
    x, y = (np.array(values) for values in zip(*sorted(points), strict=True))
    design = np.stack([1 / y, x / y], 1)
    start, slope = (float(v) for v in np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0])
    worst = float(np.abs((start + slope * x) / y - 1).max())
    return Clock(title, tuple(sorted(points)), start, slope, worst, _power(x, y))


def _power(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """The slope of log y over log x by least squares, with Student's t interval of 95 %."""
    across, up = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    spread = float(across @ across)
    power = float(across @ up) / spread
    error = math.sqrt(float(((up - power * across) ** 2).sum()) / max(len(x) - 2, 1) / spread)
    half = error * float(special.stdtrit(max(len(x) - 2, 1), 0.975))
    return power, power - half, power + half


def steps_table(sheet: Sheet) -> Table | None:
    """The quality metric by sampler and network calls, laid out as the published table is."""
    alike = {id(row) for row in usual(sheet.rows, sheet.quality)}
    held = [line for line in lines(sheet) if any(id(row) in alike for _, row in line.rows)]
    calls = sorted({x for line in held for x, _ in line.rows})
    if sheet.quality is None or len(calls) < 2 or len(calls) > 20:
        return None
    scores = {
        (i, x): row.scores[sheet.quality] for i, line in enumerate(held) for x, row in line.rows if id(row) in alike
    }
    best = {x: min(s.value for (_, at), s in scores.items() if at == x) for x in {x for _, x in scores}}
    table_lines = []
    for i, line in enumerate(held):
        data = [Datum(line.label, line.label.lower())]
        data += [_datum(scores.get((i, x)), best.get(x)) for x in calls]
        table_lines.append(TableLine(tuple(data), family=line.rows[0][1].model.family))
    columns = (Column("sampler", numeric=False), *(Column(f"{x:g} calls", "↓") for x in calls))
    intro = (
        f"{sheet.quality} by the number of network calls an image; in small the interval, the lowest of each column in "
        "bold. eta 1 is DDPM's posterior variance, sigma-hat its larger one."
    )
    return Table("steps", "Measured: quality over steps", intro, columns, tuple(table_lines))


def _datum(score: Score | None, best: float | None) -> Datum:
    if score is None:
        return Datum("–")
    return Datum(number(score.value), score.value, interval_text(score), best=score.value == best, hint=hint(score))


def _own(row: Row, other: Row, metric: str, seed: int) -> tuple[float | None, float | None]:
    bounds = []
    for held in (row, other):
        found = [m for r in held.records if r.cell.seed == seed for m in r.measured if m.metric == metric]
        low, high = found[0].low, found[0].high
        if low is None or high is None or low <= 0:
            return None, None
        bounds.append((low, high))
    return bounds[0][0] / bounds[1][1], bounds[0][1] / bounds[1][0]


def _trained(sheet: Sheet) -> dict[str, dict[int, Row]]:
    """By model name, T -> the full-chain draw (eta 1) of the training with this T and else the same config and budget.

    Only where several T were trained.
    """
    groups: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    for row in sheet.rows:
        total = timesteps_of(row)
        if row.draw is None or total is None or kind_of(row.draw) != "eta 1" or steps_of(row) != total:
            continue
        cell = row.records[0].cell
        same = {name: value for name, value in cell.config.items() if name != "timesteps"}
        key = json.dumps([same, cell.budget.label()], sort_keys=True, default=str)
        groups[row.model.name, key].setdefault(total, row)
    found: dict[str, dict[int, Row]] = {}
    for (name, _), rows in groups.items():
        if len(rows) > max(1, len(found.get(name, ()))):
            found[name] = dict(sorted(rows.items()))
    return found


def _label(draw: Draw) -> str:
    """`DDIM eta 0, trailing`; the steps are left out."""
    kind = kind_of(draw)
    if kind is None:
        words = " ".join(part for part in draw.label().split(" ") if not part.startswith("S="))
        return words.replace("ddim", "DDIM")
    name = f"DDIM {kind}" if draw.sampler == "ddim" else f"ancestral, {draw.variance or 'beta_tilde'}"
    return name + ("" if draw.spacing == "uniform" else f", {draw.spacing}")


def _by_calls(points: Iterable[tuple[float, Row]]) -> tuple[tuple[float, Row], ...]:
    return tuple(sorted(points, key=lambda point: point[0]))
