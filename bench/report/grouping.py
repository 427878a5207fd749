"""Records to rows: cells that differ by their seed alone become one row, each score a mean with its spread."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from bench.record import Measurement, Record
from bench.report.ratios import ratio
from bench.report.rows import Row, Score, Scores, Sheet, Spread, base, variant
from bench.report.source import CEILING, CORRUPTED, FAMILIES, FLOOR, ModelInfo, Source
from bench.stats import Scale, mean_over_seeds
from bench.variants import variants

QUALITY = ("fd", "fid")
"""Metric families that can make the quality axis; the one that most rows have does."""

NEAR_BEST = 1.1
"""A draw whose FD is within this factor of its sampler's best may stand for that sampler, as may one that three seeds
or more do not tell from it."""

CHOSEN_TOLD = (
    "A model with several samplers has one mark and one triangle for each: of its draws whose FD is within 10 % of "
    "that sampler's lowest, or that three seeds or more do not tell from it (ratio of FD, seed by seed), the one with "
    "the fewest network calls."
)
"""The rule of `_representative`, for readers."""

_POSITIVE = frozenset(
    [
        *(
            "fd",
            "fid",
            "fd_exact",
            "fd_by_resolution",
            "fd_inf",
            "fid_inf",
            "is",
            "mode_kl",
            "ppl",
            "density",
            "nn_train_ratio",
            "sharpness",
        ),
        *("nfe", "flops", "limit_ratio"),
    ]
)
SPEED_UNITS = ("s", "images/s", "images/CPU s", "B")
"""Of times, rates and memory: positive, and never the same in two runs."""
_OF_REQUESTS = frozenset(
    ["attribute_accuracy", "r_precision", "paired_error", "reconstruction_l1", "cycle_l1", "mask_iou", "appearance_l1"]
)
"""Shares of what was asked for, and mean errors of pixels of a range of 1: both within [0, 1]."""

_SHARES = _OF_REQUESTS | {
    *("precision", "recall", "coverage", "nn_train_share", "context_fraction", "cluster_accuracy"),
    *("precision_late", "recall_late", "reconstruction_mse"),
}

_OF_IMAGES = frozenset(
    [
        *("fd", "fid", "fd_by_resolution", "fd_inf", "fid_inf", "is", "kid", "mmd_rbf", "cmmd"),
        *("precision", "recall", "density", "coverage"),
        *("modes", "mode_kl", "nn_train_share", "nn_train_ratio", "sharpness"),
        *_OF_REQUESTS,
    ]
)


def make_sheet(source: Source, dataset: str) -> Sheet:
    """Group a data set's records into rows, aggregate over seeds, choose the axes' metrics."""
    records = [r for r in source.records if r.cell.dataset == dataset]
    rows = [row for name, group in _by_model(records).items() for row in _rows_of(source.models[name], group)]
    order = list(FAMILIES)
    rows.sort(key=lambda r: order.index(r.model.family))
    floor = next((r for r in rows if r.model.name == FLOOR), None)
    ceiling = next((r for r in rows if r.model.name == CEILING), None)
    corrupted = tuple(r for r in rows if r.model.name == CORRUPTED)
    rows = [r for r in rows if r.model.name != CORRUPTED]
    quality = _commonest(rows, QUALITY)
    features = "" if quality is None else variant(quality)
    return Sheet(
        dataset=dataset,
        rows=_choose_shown([r for r in rows if r is not floor and r is not ceiling], quality),
        floor=floor,
        ceiling=ceiling,
        quality=quality,
        coverage=_commonest(rows, ("coverage",), features),
        recall=_commonest(rows, ("recall",), features),
        speed=_commonest(rows, ("images_per_s",)),
        latency="latency_s[p50]" if any("latency_s[p50]" in r.scores for r in rows) else None,
        corrupted=corrupted,
    )


def aggregate(values: Sequence[Measurement]) -> Score:
    """The mean of one metric over seeds.

    With 3 or more seeds the interval is Student's t at 95 %, of positive quantities on their logarithms and of shares
    within [0, 1]; with 2 it is their range, with 1 its own if it has one.
    """
    first, n = values[0], len(values)
    numbers = [float(m.value) for m in values]
    # of two the t interval is not asked for, and on logarithms may lie beyond all floats: 1 and 1e60, one has diverged
    mean = mean_over_seeds(numbers, scale_of(values) if n >= 3 else "plain")
    low: float | None = None
    high: float | None = None
    spread: Spread = ""
    if n >= 3:
        low, high, spread = mean.low, mean.high, "t"
    elif n == 2:
        low, high, spread = min(numbers), max(numbers), "range"
    elif first.low is not None and first.high is not None:
        low, high, spread = first.low, first.high, "own"
    protocol, mixed = protocol_over(values)
    return Score(
        metric=first.metric,
        value=mean.value,
        low=low,
        high=high,
        spread=spread,
        seeds=n,
        unit=first.unit,
        better=first.better,
        kind=first.kind,
        protocol=protocol,
        mixed=mixed,
        note="; ".join(dict.fromkeys(m.note for m in values if m.note)),
    )


def protocol_over(values: Sequence[Measurement]) -> tuple[str, bool]:
    """The protocol of most seeds, see `protocol_of`, and whether there are others."""
    first = values[0]
    alike = all(m.protocol == first.protocol and m.n == first.n for m in values)
    protocols = [protocol_of(m) for m in values[: 1 if alike else None]]
    return Counter(protocols).most_common(1)[0][0], len(set(protocols)) > 1


def scale_of(values: Sequence[Measurement]) -> Scale:
    """Whether an interval over seeds is taken on logarithms or kept within [0, 1], by what is measured."""
    first = values[0]
    if base(first.metric) in _SHARES:
        return "share"
    positive = base(first.metric) in _POSITIVE or first.unit in SPEED_UNITS
    return "log" if positive and all(m.value > 0 for m in values) else "plain"


def protocol_of(m: Measurement) -> str:
    """Canonical JSON of all that must be equal for a comparison.

    Seeds are replicates, and the state of the measured model (`subject`: EMA or raw weights, clipping) is a property
    of the row; N belongs to the protocol of metrics of samples.
    """
    held = {k: v for k, v in m.protocol.items() if k not in ("seed", "subject")}
    if base(m.metric) in _OF_IMAGES:
        held["n"] = m.n
    return json.dumps(held, sort_keys=True, default=str)


def training_of(record: Record) -> tuple[str, str, str]:
    """What the seeds of one training have in common: model, budget, config."""
    return record.cell.model, record.cell.budget.label(), _canonical(record.cell.config)


def _by_model(records: Iterable[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for r in records:
        groups[r.cell.model].append(r)
    return groups


def _rows_of(model: ModelInfo, records: list[Record]) -> list[Row]:
    """One row a (budget, config, draw); a training without draws keeps a row."""
    trainings: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for r in sorted(records, key=lambda r: r.cell.seed):
        trainings[training_of(r)].append(r)
    rows: list[Row] = []
    made: dict[tuple[int, ...], Score] = {}

    def once(values: Sequence[Measurement]) -> Score:
        """What is measured of a training is the same in the rows of all its draws."""
        place = tuple(map(id, values))
        if place not in made:
            made[place] = aggregate(values)
        return made[place]

    for name, group in zip(variants([held[0].cell for held in trainings.values()]), trainings.values(), strict=True):
        draws: dict[tuple[str, int | None], list[Record]] = defaultdict(list)
        for r in group:
            if r.cell.draw is not None:
                draws[r.cell.draw.label(), r.cell.samples].append(r)
        trained = [r for r in group if r.cell.draw is None]
        shared = [m for drawn in draws.values() for r in drawn for m in r.measured if m.scope == "train"]
        rows += [_row(model, name, trained, drawn, shared, once) for drawn in (draws.values() or [[]])]
    return [replace(row, lone=len(rows) == 1) for row in rows]


def _row(
    model: ModelInfo,
    name: str,
    trained: list[Record],
    drawn: list[Record],
    shared: list[Measurement],
    make: Callable[[Sequence[Measurement]], Score],
) -> Row:
    """shared: what was measured beside one draw but holds for the training, such as the likelihood's speed."""
    own = drawn or trained
    good = [r for r in own if r.status == "ok"]
    measured: dict[str, list[Measurement]] = defaultdict(list)
    skipped: dict[str, str] = {}
    for r in [*trained, *drawn]:
        skipped |= r.skipped
        for m in r.measured if r.status == "ok" else ():
            if r.cell.draw is None or m.scope == "draw":
                measured[m.metric].append(m)
    for m in shared:
        measured[m.metric].append(m)
    draw = own[0].cell.draw
    return Row(
        model=model,
        variant=name,
        draw=draw,
        seeds=tuple(r.cell.seed for r in good),
        scores=Scores(measured, make, protocol_over),
        skipped={metric: reason for metric, reason in skipped.items() if metric not in measured},
        records=tuple(good),
        failed=sum(r.status != "ok" for r in [*trained, *drawn]),
        samples=own[0].cell.samples,
    )


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _commonest(rows: Sequence[Row], bases: tuple[str, ...], features: str | None = None) -> str | None:
    """The metric of these families that most rows have; one in the given features goes first."""
    found = Counter(metric for row in rows for metric in row.scores if base(metric) in bases)

    def rank(metric: str) -> tuple[bool, int, str]:
        return features is not None and variant(metric) != features, -found[metric], metric

    return min(found, key=rank, default=None)


def _choose_shown(rows: list[Row], quality: str | None) -> tuple[Row, ...]:
    """Mark one row a sampler: the draw of fewest calls within NEAR_BEST of the sampler's best FD or not told from it.

    Whether the seeds tell two draws of one checkpoint apart is asked seed by seed: what seeds have in common, a better
    or worse training, is then no reason why two draws could not be told apart. Exact denoisers stand beside no trained
    model.
    """
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.model.name, row.variant, "" if row.draw is None else row.draw.sampler].append(row)
    learned = any(not row.model.is_reference and not row.model.is_oracle for row in rows)
    chosen = {id(_representative(g, quality)) for g in groups.values() if not (learned and g[0].model.is_oracle)}
    return tuple(replace(row, shown=id(row) in chosen) for row in rows)


def _representative(group: list[Row], quality: str | None) -> Row:
    scored = [(value, row) for row in group if (value := row.value(quality)) is not None]
    if not scored or quality is None:
        return group[0]
    lowest, best = min(scored, key=lambda pair: pair[0])
    near = [(value, row) for value, row in scored if value <= NEAR_BEST * lowest or _as_good(row, best, quality)]
    return min(near, key=lambda pair: (_calls(pair[1]), pair[0]))[1] if near else best


def _as_good(row: Row, best: Row, metric: str) -> bool:
    """Whether three seeds or more do not tell the row from the best; two tell hardly anything apart."""
    found = ratio(row, best, metric)
    return found is not None and found.seeds > 2 and found.unclear


def _calls(row: Row) -> float:
    """Network calls of an image, or the steps asked for: what one draw of a checkpoint costs beside another."""
    return row.value("nfe") or (math.inf if row.draw is None or row.draw.steps is None else row.draw.steps)
