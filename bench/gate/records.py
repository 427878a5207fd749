"""Two results folders side by side: counters exactly, quality by paired seeds, time as a trend."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from baselines.errors import UserError
from bench import store, variants
from bench.gate.outcome import FAILING, Outcome, Row, Verdict
from bench.gate.quality import ALPHA, GATED, Compared, Difference, difference, judge, same_protocol
from bench.gate.rule import counter_row
from bench.record import Cell, Measurement, Record
from bench.report.grouping import SPEED_UNITS
from bench.report.rows import base as family_of
from bench.report.source import Source, open_results

COUNTERS = ("nfe", "flops", "parameters", "gpu_peak_allocated_bytes")
"""Deterministic: compared exactly, but for the peak on a GPU."""

Place = tuple[str, str, str, str, str, int | None]


@dataclass
class Met:
    """All that the two folders have to say of each other."""

    counters: list[Row] = field(default_factory=list)
    cells: list[Row] = field(default_factory=list)
    quality: dict[str, tuple[list[Measurement], list[Measurement]]] = field(default_factory=dict)
    refused: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    trends: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    other_speed: int = 0  # times that were taken under other conditions


def compare(base: Path, head: Path, select: str | None = None, every: bool = False) -> Outcome:
    """What changed from one results folder to another.

    Args:
        base, head: results folders.
        select: only rows whose name, `cell: metric`, holds this.
        every: judge every metric that has a better side, not only the families of GATED.

    Raises:
        UserError: if a folder holds no records, they are of a newer schema, or nothing can be compared.
    """
    sources = [open_results(folder) for folder in (base, head)]
    met = _meet(sources[0], sources[1], select or "", every)
    found = [difference(Compared(name, *sides)) for name, sides in met.quality.items()]
    refused = [
        Row(
            "quality",
            f"{metric} ({len(cells)} cells)" if len(cells) > 1 else f"{cells[0]}: {metric}",
            "refused",
            note=why,
        )
        for (metric, why), cells in met.refused.items()
    ]
    rows = [*met.cells, *judge(found), *met.counters, *refused, *_trends(met)]
    scores = any(row.group == "quality" and row.verdict != "refused" for row in rows)
    if not (scores or (met.counters and not refused) or any(row.verdict in FAILING for row in rows)):
        why = f"; {len(refused)} metrics were measured under other protocols: {refused[0].note}" if refused else ""
        raise UserError(
            f"gate: expected {'scores' if met.counters else 'cells'} that {base} and {head} have in common"
            f"{f' and whose name holds {select!r}' if select else ''}, got none that can be compared{why}"
        )
    return Outcome(f"{base} → {head}", tuple(rows), tuple(_notes(met, sources, found, every)))


def _meet(base: Source, head: Source, select: str, every: bool) -> Met:
    met = Met()
    ours, theirs = ({(place_of(r.cell), r.cell.seed): r for r in source.records} for source in (base, head))
    labels = _labels([*theirs.values(), *ours.values()])
    for key in dict.fromkeys((*ours, *theirs)):
        old, new = ours.get(key), theirs.get(key)
        label = labels[key[0]]
        if old is None or new is None:
            if select in label:
                name = f"{label} seed {key[1]}"
                met.cells.append(Row("cell", name, "new" if old is None else "gone", note=_status(old or new)))
        elif old.status == "ok" and new.status != "ok":
            if select in label:
                met.cells.append(Row("cell", f"{label} seed {key[1]}", "broken", "ok", new.status, note=_first(new)))
        elif old.status == "ok":
            _meet_records(met, label, old, new, select, every)
        elif select in label:
            both = "works again" if new.status == "ok" else "failed in both"
            verdict: Verdict = "improvement" if new.status == "ok" else "unclear"
            met.cells.append(Row("cell", f"{label} seed {key[1]}", verdict, old.status, new.status, note=both))
    return met


def _meet_records(met: Met, label: str, old: Record, new: Record, select: str, every: bool) -> None:
    after = {m.metric: m for m in new.measured}
    for m in old.measured:
        name = f"{label}: {m.metric}"
        if select not in name:
            continue
        other, family, seed = after.get(m.metric), family_of(m.metric), old.cell.seed
        is_counter = family in COUNTERS
        is_trend = not is_counter and is_speed(m)
        judged = not is_trend and not is_counter and m.better != "none" and (every or family in GATED)
        if not (is_counter or is_trend or judged):
            continue
        if other is None:
            if not is_trend:
                why = new.skipped.get(m.metric) or new.skipped.get(family) or "not measured"
                met.cells.append(Row("cell", f"{name}, seed {seed}", "lost", f"{m.value:.5g}", "-", note=why))
        elif apart := same_protocol(m, other):
            if is_trend:
                met.other_speed += 1
            else:
                met.refused[m.metric, apart].append(label)
        elif is_counter:
            met.counters.append(counter_row(f"{name}, seed {seed}", family, m.value, other.value))
        elif is_trend:
            if m.value > 0 and other.value > 0:
                met.trends[m.metric].append(math.log(other.value / m.value))
        else:
            sides = met.quality.setdefault(name, ([], []))
            sides[0].append(m)
            sides[1].append(other)


def _trends(met: Met) -> list[Row]:
    """A row a metric: the geometric mean of head over base. Two runs are two moments of the machine: never judged."""
    return [
        Row(
            "time",
            metric,
            "trend",
            change=f"{math.exp(float(np.mean(logs))):.3g}×",
            sure=f"{len(logs)} cell{'s' * (len(logs) > 1)}",
        )
        for metric, logs in met.trends.items()
    ]


def _notes(met: Met, sources: Sequence[Source], found: Sequence[Difference], every: bool) -> list[str]:
    compared = len(found)
    what = "every metric with a better side" if every else f"the families {', '.join(GATED)} (others: --all-metrics)"
    notes = [
        f"Quality: {what}; mean of paired differences; a regression lies beyond the tolerance (2 % of positive "
        f"quantities, .01 of shares and of bits/dim) after Holm's correction for {compared} comparisons, which keeps "
        f"the chance of any false alarm at {ALPHA:.1%}.",
        f"Suspect: its own 95 % interval lies beyond the tolerance; without a change at most {compared * ALPHA:.1f} of "
        f"{compared} would, on average.",
    ]
    notes.append("Times and host memory of two runs are trends, never judged: `trilemma gate --base REF` judges time.")
    seeds = Counter(d.seeds for d in found if d.kind == "paired t").most_common(1)
    if seeds:
        needed = float(student.ppf(1 - ALPHA / compared, seeds[0][0] - 1))
        notes.append(
            f"With {seeds[0][0]} seeds the first of {compared} findings needs a mean difference of {needed:.3g} "
            "standard errors; more seeds or fewer scores (--select) find smaller ones."
        )
    if met.other_speed:
        notes.append(f"{met.other_speed} times and peaks were taken under other conditions and are left out.")
    if left := len(_unrecorded(sources[1])):
        notes.append(
            f"{sources[1].folder}: {left} cells of its matrix have no record: a part of it was run, or not yet."
        )
    for source in sources:
        notes += [f"{source.folder}: {problem}" for problem in source.problems[:5]]
    return notes


def _unrecorded(source: Source) -> list[str]:
    """Keys of the cells that the run's matrix asks for and that are not there."""
    here = {r.key for r in source.records}
    return [key for key in store.read_run(source.folder).get("keys", ()) if key not in here]


def is_speed(m: Measurement) -> bool:
    """Whether another run of the same code measures another value: a time, a rate, memory, or a ratio of two times."""
    return m.unit in SPEED_UNITS or family_of(m.metric) == "limit_ratio"


def place_of(cell: Cell) -> Place:
    """All that a cell of one folder must share with one of another to meet it, seeds apart."""
    draw = "" if cell.draw is None else json.dumps(cell.draw.__dict__, sort_keys=True, default=str)
    config = json.dumps(cell.config, sort_keys=True, default=str)
    return cell.model, cell.dataset, cell.budget.label(), config, draw, cell.samples


def _labels(records: Sequence[Record]) -> dict[Place, str]:
    """`ddpm-digits (lr=0.001), ddim S=20 eta=0`: a cell's name without its seed."""
    cells = {place_of(r.cell): r.cell for r in records}
    told = variants.told_apart(list(cells.values()))
    return {
        place: cell.label(variant).replace(f" seed {cell.seed}", "", 1)
        for (place, cell), variant in zip(cells.items(), told, strict=True)
    }


def _status(record: Record | None) -> str:
    return "" if record is None or record.status == "ok" else record.status


def _first(record: Record) -> str:
    return record.error.strip().splitlines()[0] if record.error.strip() else record.status
