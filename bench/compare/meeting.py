"""Which cells of two results folders meet, which metrics of theirs may be compared, and what is only in one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bench.compare.folders import Folder
from bench.compare.labels import settings_of
from bench.gate.quality import GATED, same_protocol
from bench.gate.records import COUNTERS, Place, is_speed, place_of
from bench.record import Cell, Measurement, Record
from bench.report.rows import base as family_of

ACROSS = ("new-settings", "config", "budget")
"""What paired cells may be allowed to differ in: settings that only one side knows, all settings, the budget."""

SCORES = (*GATED, "precision", "recall")
"""Metric families that are judged unless all are asked for; every further one makes each finding less sure."""
SPEEDS = ("images_per_s", "latency_s[p50]", "training_images_per_s")
"""Told without being asked for; of latencies the median."""

Treatment = Literal["score", "counter", "speed"]
Key = tuple[Place, str]


@dataclass
class Pairs:
    """One metric of one cell on both sides, seed by seed."""

    treatment: Treatment
    label: str  # of the cell, in the first folder
    base: list[Measurement] = field(default_factory=list)
    head: list[Measurement] = field(default_factory=list)
    note: str = ""  # what the two cells differ in, where that is allowed


@dataclass(frozen=True)
class Alone:
    """What only one folder has."""

    folder: str
    label: str
    seeds: tuple[int, ...]
    why: str = ""  # the nearest that the other has, or why it was not measured there


@dataclass
class Meeting:
    """All that one folder has to say of another."""

    pairs: dict[Key, Pairs] = field(default_factory=dict)
    refused: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    alone: list[Alone] = field(default_factory=list)
    failed: list[tuple[str, str, str, str]] = field(default_factory=list)  # (cell and seed, base, head, error)
    cells: int = 0  # that meet, seeds apart
    copies: int = 0  # records that are the same measurement


def treatment_of(m: Measurement, every: bool) -> Treatment | None:
    """Whether a metric is judged by its intervals, compared exactly, told as speed, or left out."""
    family = family_of(m.metric)
    if family in COUNTERS:
        return "counter"
    if is_speed(m):
        return "speed" if every or m.metric in SPEEDS else None
    return "score" if m.better != "none" and (every or family in SCORES) else None


def meet(
    base: Folder, head: Folder, names: Mapping[Place, str], select: str, every: bool, across: Collection[str]
) -> Meeting:
    """Pair what two folders hold by cell and seed.

    Args:
        base, head: the folders.
        names: of cells, from `labels`.
        select: only rows whose name, `cell: metric`, holds this.
        every: all metrics that have a better side.
        across: of ACROSS, what paired cells may differ in.

    Cells of one folder that differ in nothing else than what is allowed are paired with none, and told.
    """
    met, known = Meeting(), _known(base, head)
    (ours, unclear), (theirs, unclear_there) = (_held(folder, across, known) for folder in (base, head))
    for place in (place for place in ours if place in theirs):
        label = names[place_of(next(iter(ours[place].values())).cell)]
        seeds = sorted(ours[place].keys() & theirs[place].keys())
        met.cells += bool(seeds)
        for seed in seeds:
            _meet_records(met, place, label, (ours[place][seed], theirs[place][seed]), select, every)
    for mine, held, odd, other, others in (
        (base, ours, unclear, head, theirs),
        (head, theirs, unclear_there, base, ours),
    ):
        met.alone += _alone(mine, held, other, others, names, select)
        met.alone += [
            Alone(mine.name, names[place_of(r.cell)], (r.cell.seed,), f"cannot be paired: {why}")
            for r, why in odd
            if select in names[place_of(r.cell)]
        ]
    return met


def _known(base: Folder, head: Folder) -> dict[tuple[str, str], set[str]]:
    """The settings that a model's cells on both sides have."""
    sides: list[dict[tuple[str, str], set[str]]] = [defaultdict(set), defaultdict(set)]
    for side, folder in zip(sides, (base, head), strict=True):
        for r in folder.source.records:
            side[r.cell.model, r.cell.dataset] |= settings_of(r.cell).keys()
    return {key: sides[0][key] & sides[1][key] for key in sides[0].keys() & sides[1].keys()}


def _held(
    folder: Folder, across: Collection[str], known: Mapping[tuple[str, str], Collection[str]]
) -> tuple[dict[Place, dict[int, Record]], list[tuple[Record, str]]]:
    """Records by what must be equal and by seed; and those that others of the folder are then not told apart from."""
    found: dict[tuple[Place, int], list[Record]] = defaultdict(list)
    for r in folder.source.records:
        model, dataset, budget, config, draw, samples = place_of(r.cell)
        if "config" in across:
            config = ""
        elif "new-settings" in across:
            both = known.get((model, dataset), ())
            config = json.dumps({k: v for k, v in settings_of(r.cell).items() if k in both}, sort_keys=True)
        place: Place = (model, dataset, "" if "budget" in across else budget, config, draw, samples)
        found[place, r.cell.seed].append(r)
    held: dict[Place, dict[int, Record]] = defaultdict(dict)
    unclear = []
    for (place, seed), records in found.items():
        if len(records) == 1:
            held[place][seed] = records[0]
        else:
            others = [next(o for o in records if o is not r) for r in records]
            unclear += [
                (r, f"{folder.name} has another that differs in {few(apart(r.cell, o.cell))}")
                for r, o in zip(records, others, strict=True)
            ]
    return dict(held), unclear


def _meet_records(
    met: Meeting, place: Place, label: str, sides: tuple[Record, Record], select: str, every: bool
) -> None:
    old, new = sides
    seeded = f"{label} seed {old.cell.seed}"
    if old.status != "ok" or new.status != "ok":
        if select in label:
            told = next((r.error.strip().splitlines()[0] for r in (new, old) if r.error.strip()), "")
            met.failed.append((seeded, old.status, new.status, told))
        return
    met.copies += old.key == new.key and old.provenance.get("time") == new.provenance.get("time")
    after = {m.metric: m for m in new.measured}
    before = {m.metric: m for m in old.measured}
    for metric in dict.fromkeys((*before, *after)):
        m, other, name = before.get(metric), after.get(metric), f"{label}: {metric}"
        treatment = treatment_of(m or after[metric], every)
        if treatment is None or select not in name:
            continue
        if m is None or other is None:
            there, lacking = (sides, new) if other is None else ((new, old), old)
            why = lacking.skipped.get(metric) or lacking.skipped.get(family_of(metric)) or "not measured there"
            met.refused[metric, f"only in the {'first' if there[0] is old else 'other'}: {why}"].append(label)
        elif differs := same_protocol(m, other):
            met.refused[metric, differs].append(label)
        else:
            pairs = met.pairs.setdefault((place, metric), Pairs(treatment, label, note=few(apart(old.cell, new.cell))))
            pairs.base.append(m)
            pairs.head.append(other)


def _alone(
    mine: Folder,
    held: Mapping[Place, Mapping[int, Record]],
    other: Folder,
    others: Mapping[Place, Mapping[int, Record]],
    names: Mapping[Place, str],
    select: str,
) -> Iterable[Alone]:
    near: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for records in others.values():
        cell = next(iter(records.values())).cell
        near[cell.model, cell.dataset].append(cell)
    for place, records in held.items():
        cell = next(iter(records.values())).cell
        label, seeds = names[place_of(cell)], tuple(sorted(records.keys() - others.get(place, {}).keys()))
        if not seeds or select not in label:
            continue
        if place in others:
            why = f"{other.name} has seeds {', '.join(map(str, sorted(others[place])))}"
        else:
            found = [apart(cell, c) for c in near[cell.model, cell.dataset] if (c.draw is None) == (cell.draw is None)]
            nearest = min(found, key=lambda text: (text.count(";"), len(text)), default="")
            why = f"nearest in {other.name}: {few(nearest)}" if nearest else ""
        yield Alone(mine.name, label, seeds, why)


def apart(cell: Cell, other: Cell) -> str:
    """`lr: 0.002 → 0.001; budget: 400000 images → 100000 images`: in what two cells differ, seeds apart."""
    a, b = _flat(cell), _flat(other)
    return "; ".join(
        f"{name}: {_short(a.get(name, '-'))} → {_short(b.get(name, '-'))}"
        for name in dict.fromkeys((*a, *b))
        if a.get(name) != b.get(name)
    )


def few(text: str, most: int = 3) -> str:
    """The first of several differences, and how many more there are."""
    parts = text.split("; ")
    return "; ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")


def _flat(cell: Cell) -> dict[str, str]:
    draw = "" if cell.draw is None else cell.draw.label()
    return {"budget": cell.budget.label(), "draw": draw, "N": str(cell.samples)} | settings_of(cell)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
