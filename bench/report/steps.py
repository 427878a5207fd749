"""What do steps buy? Draws of diffusion checkpoints by sampler and number of steps: lines, and one study of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from baselines.types import Draw
from bench.report.marks import commonest_protocol
from bench.report.names import SIGMA_HAT, noise, way
from bench.report.rows import EXACT, Row, Sheet, base

TRAINED = "DDPM trained with T = S"
AT_ONCE = "native", "mean"
"""Samplers of models that draw in one pass: without a number of steps they make no line."""


@dataclass(frozen=True)
class Line:
    """The draws of one checkpoint that differ in their steps alone, by rising number of network calls."""

    label: str  # such as `DDIM eta 0, trailing`
    kind: str  # eta 0, eta 0.5, sigma-hat, ...: what has a colour
    spacing: str
    rows: tuple[tuple[float, Row], ...]  # (network calls an image, row)


@dataclass(frozen=True)
class Study:
    """One checkpoint's draws by (kind, spacing) and steps, and the models that were trained with T = S."""

    title: str
    timesteps: int | None  # T
    quality: str
    draws: Mapping[tuple[str, str], Mapping[int, Row]]
    trained: Mapping[int, Row]  # by T
    schedule: str = ""

    @property
    def seeds(self) -> int:
        """The most seeds that a draw has."""
        return max(len(row.seeds) for rows in self.draws.values() for row in rows.values())

    @property
    def exact(self) -> bool:
        """Whether its numbers are computed for an exact denoiser, so that any difference is one."""
        return base(self.quality) == EXACT

    def of(self, kind: str, spacing: str = "uniform") -> Mapping[int, Row]:
        """Its draws of one kind by steps; none where there are none."""
        return self.draws.get((kind, spacing), {})

    def others(self, but: str) -> dict[str, Mapping[int, Row]]:
        """The kinds with uniform timesteps, all but one."""
        return {kind: rows for (kind, spacing), rows in self.draws.items() if spacing == "uniform" and kind != but}


def timesteps_of(row: Row) -> int | None:
    """T of the row's training, where its config has one."""
    value = row.records[0].cell.config.get("timesteps") if row.records else None
    return value if isinstance(value, int) and value > 0 else None


def steps_of(row: Row) -> int | None:
    """S of the row's draw: as asked for, else all T."""
    return None if row.draw is None else row.draw.steps or timesteps_of(row)


def kind_of(draw: Draw) -> str | None:
    """What sets a sampler of one network call a step apart; None for other samplers and unusual settings.

    DDPM's posterior variance is eta 1, its larger one is sigma-hat. Whether x_0 is clamped makes no kind.
    """
    if draw.options:
        return None
    if draw.sampler == "ddim" and draw.variance in (None, "sigma_hat"):
        return noise(draw)
    if draw.sampler in ("ddpm", "native"):
        return {None: "eta 1", "beta_tilde": "eta 1", "beta": SIGMA_HAT}.get(draw.variance)
    return None


def exact_metric(sheet: Sheet) -> str | None:
    """The name of the exact distance, where a row of the sheet has one."""
    return next((metric for row in sheet.rows for metric in row.scores if base(metric) == EXACT), None)


def with_exact(sheet: Sheet) -> set[str]:
    """Titles of the models whose draws are known exactly: their sampled numbers tell nothing more."""
    return {row.title for row in sheet.rows for metric in row.scores if base(metric) == EXACT}


def lines(sheet: Sheet) -> list[Line]:
    """Every line over steps of a data set; full-chain draws of models trained with several T make a line of theirs.

    Models with exact numbers have their lines in a figure of their own.
    """
    trained, exact = _trained(sheet), with_exact(sheet)
    beside = {id(row) for rows in trained.values() for row in rows.values()}
    both = {title for title in {row.title for row in sheet.rows} if len(_clips(sheet, title)) > 1}
    held: dict[tuple[str, str], list[tuple[float, Row]]] = defaultdict(list)
    for row in sheet.rows:
        calls = row.value("nfe") or steps_of(row)
        if row.draw is None or row.lone or not calls or row.title in exact:
            continue
        if row.draw.steps or row.draw.sampler not in AT_ONCE:
            held[row.title, way(row.draw, clip=row.title in both)].append((float(calls), row))
    alone = {key for key, points in held.items() if all(id(row) in beside for _, row in points)}
    names = _names([rows[0][1] for key, rows in held.items() if key not in alone])
    found = []
    for (title, label), points in held.items():
        if (title, label) in alone:
            continue
        draw = points[0][1].draw
        assert draw is not None
        kind = kind_of(draw) if draw.sampler == "ddim" else None  # DDPM's own draws are told apart from eta 1
        found.append(Line(names[title] + label, kind or label, draw.spacing, by_calls(points)))
    for name, rows in trained.items():
        title = next(iter(rows.values())).model.title
        label = TRAINED if len(trained) == 1 else f"{title} trained with T = S"
        found.append(Line(label, f"{name} T=S", "uniform", by_calls((float(t), row) for t, row in rows.items())))
    return found


def study_of(sheet: Sheet, exact: bool = False) -> Study | None:
    """The checkpoint with the most DDIM draws of eta 0; None if there are fewer than two.

    exact: of the exact denoisers by their exact numbers, instead of the trained networks by those of samples.
    """
    metric = exact_metric(sheet) if exact else sheet.quality
    if metric is None:
        return None
    checkpoints: dict[tuple[str, bool], dict[tuple[str, str], dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in sorted(sheet.rows, key=lambda r: r.draw is None or r.draw.sampler != "ddim"):  # DDIM's own first
        kind, steps = None if row.draw is None else kind_of(row.draw), steps_of(row)
        if row.draw is None or kind is None or steps is None or row.model.is_oracle != exact:
            continue
        if (row.value(metric) or 0) > 0:
            checkpoints[row.title, row.draw.clip][kind, row.draw.spacing].setdefault(steps, row)
    sizes = {key: len(draws.get(("eta 0", "uniform"), ())) for key, draws in checkpoints.items()}
    chosen = max(sizes, key=lambda key: sizes[key], default=None)
    if chosen is None or sizes[chosen] < 2:
        return None
    any_row = next(row for rows in checkpoints[chosen].values() for row in rows.values())
    trained = _trained(sheet).get(any_row.model.name, {})
    others = {t: row for t, row in trained.items() if row.title != chosen[0] and (row.value(metric) or 0) > 0}
    draws = {key: dict(sorted(rows.items())) for key, rows in checkpoints[chosen].items()}
    schedule = str(any_row.records[0].cell.config.get("schedule", "")) if any_row.records else ""
    return Study(chosen[0], timesteps_of(any_row), metric, draws, others, schedule)


def usual(rows: Iterable[Row], metric: str | None) -> list[Row]:
    """The rows that have the metric, by the protocol that most of them have."""
    held = [row for row in rows if metric is not None and metric in row.scores]
    protocol = commonest_protocol(row.protocol(metric or "") for row in held)
    return [row for row in held if row.protocol(metric or "") == protocol]


def by_calls(points: Iterable[tuple[float, Row]]) -> tuple[tuple[float, Row], ...]:
    """(calls, row) pairs by rising calls."""
    return tuple(sorted(points, key=lambda point: point[0]))


def _clips(sheet: Sheet, title: str) -> set[bool]:
    return {row.draw.clip for row in sheet.rows if row.draw is not None and row.title == title}


def _names(firsts: Iterable[Row]) -> dict[str, str]:
    """By a checkpoint's title what stands before its lines' labels: as much of it as tells it from the others."""
    rows = {row.title: row for row in firsts}
    if len(rows) < 2 and not any(row.model.is_oracle for row in rows.values()):
        return dict.fromkeys(rows, "")
    one = len(rows) > 1 and len({row.model.name for row in rows.values()}) == 1
    return {title: f"{row.variant if one else title}: " for title, row in rows.items()}


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
