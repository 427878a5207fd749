"""How long cells will take, by what the same or like cells took before: in these results and in those beside them."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench import provenance, store
from bench.job import Job, Setup
from bench.record import Record


@dataclass(frozen=True)
class Estimate:
    """A cell's time by past records."""

    seconds: float
    here: bool  # whether they were made on this machine
    likeness: int  # 0: the same model, data, config and draw; 1: another seed or budget; 2: another config or draw


@dataclass(frozen=True)
class Total:
    """What a run will take, as far as its cells have an estimate."""

    seconds: float
    known: int
    elsewhere: int  # of these, by records of another machine alone
    unknown: int


class Estimator:
    """Looks cells up among past records, and learns of new ones."""

    def __init__(self, records: Iterable[Record], setup: Setup) -> None:
        self.here = machine(provenance.collect(setup.device))
        self.past: dict[tuple[str, str, bool], list[_Past]] = defaultdict(list)
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """One more record; one that did not succeed, or does not tell its time, says nothing."""
        seconds = record.provenance.get("cell_s")
        if record.status != "ok" or not isinstance(seconds, int | float) or seconds < 0:
            return
        trained = next((m.value for m in record.measured if m.metric == "training_s"), 0.0)
        where = machine(record.provenance)
        kind = (record.cell.model, record.cell.dataset, record.cell.draw is None)
        # one that was remade from its checkpoint took less than the training that it tells of
        rest = float(seconds) - float(trained) if seconds >= trained else float(seconds)
        self.past[kind].append(_Past(record, where, float(trained), rest))

    def of(self, job: Job, trained: bool = False) -> Estimate | None:
        """A job's time; None where no record of its model and data set tells.

        trained: whether its checkpoint is there, so that a training is only to be measured.
        """
        cell = job.cell
        found = [
            (_likeness(past.record, job), past) for past in self.past[(cell.model, cell.dataset, cell.draw is None)]
        ]
        found = [(how, past) for how, past in found if _kind(past.machine) == job.setup.device]
        if not found:
            return None
        best = min(how for how, _ in found)
        like = [past for how, past in found if how == best]
        ours = [past for past in like if past.machine == self.here]
        seconds = statistics.median(_scaled(past, job, trained) for past in ours or like)
        return Estimate(seconds, bool(ours), best)

    def total(self, trainings: Sequence[Job], draws: Sequence[Job], trained: set[str], slots: int) -> Total:
        """The whole of what is to do: trainings and untimed draws side by side, timed draws alone."""
        pairs = [
            (self.of(job, job.key in trained), job.timed and job.cell.draw is not None) for job in (*trainings, *draws)
        ]
        known = [(estimate, alone) for estimate, alone in pairs if estimate is not None]
        seconds = sum(estimate.seconds / (1 if alone else slots) for estimate, alone in known)
        longest = max((estimate.seconds for estimate, alone in known if not alone), default=0.0)
        elsewhere = sum(not estimate.here for estimate, _ in known)
        return Total(max(seconds, longest), len(known), elsewhere, len(pairs) - len(known))


@dataclass(frozen=True)
class _Past:
    record: Record
    machine: tuple[Any, ...]
    training_s: float
    rest_s: float  # of the cell


def machine(origin: Mapping[str, Any]) -> tuple[Any, ...]:
    """Processor, cores and device of a record's provenance: equal ones take about the same time."""
    return tuple(origin.get(name) for name in ("cpu", "cores", "device"))


def past_records(results: Path) -> list[Record]:
    """Those of the results folder, of the folders beside it and in `reference`; what cannot be read is left out."""
    found: list[Record] = []
    beside = sorted({*results.parent.glob("*"), *results.parent.glob("reference/*")})
    # os.path.isdir is False, and no error, where we may not look
    folders = [path for path in beside if os.path.isdir(path / "records") and path != results]
    for folder in [results, *folders]:
        try:
            found += store.load(folder).records if folder.is_dir() else []
        except (UserError, OSError):  # of a newer version, say: another folder's trouble is not this run's
            continue
    return found


def _likeness(record: Record, job: Job) -> int:
    ours, theirs = job.cell, record.cell
    if dict(ours.config) != dict(theirs.config) or ours.draw != theirs.draw:
        return 2
    return 0 if (ours.seed, ours.budget) == (theirs.seed, theirs.budget) else 1


def _scaled(past: _Past, job: Job, trained: bool) -> float:
    """Training by its budget, drawing by its steps; what comes after both is taken as it was."""
    ours, theirs = job.cell, past.record.cell
    if ours.draw is None:
        if trained:
            return past.rest_s
        if ours.budget.seconds is not None:
            return ours.budget.seconds + past.rest_s
        ratio = ours.budget.images / theirs.budget.images if ours.budget.images and theirs.budget.images else 1.0
        return past.training_s * ratio + past.rest_s
    values: Mapping[str, float] = {m.metric: m.value for m in past.record.measured}
    n, rate = _samples(past.record), values.get("images_per_s")
    assert theirs.draw is not None
    if not rate or n is None:
        return past.rest_s
    drawing = n / rate
    scoring = past.rest_s - drawing if past.rest_s >= drawing else past.rest_s  # remade of samples that were kept
    steps = ours.draw.steps / theirs.draw.steps if ours.draw.steps and theirs.draw.steps else 1.0
    return scoring + drawing * steps * job.samples / n


def _samples(record: Record) -> int | None:
    return next((m.n for m in record.measured if m.metric.startswith(("fd[", "precision["))), record.cell.samples)


def _kind(machine: tuple[Any, ...]) -> str:
    return "cpu" if machine[2] == "cpu" else "cuda"
