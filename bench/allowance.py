"""A time budget for a whole run: which cells come first, and which cannot end in time any more.

The most valuable cells come first: every model with its first seed before any with its second, and so on; within a
round the references that every score is read against, then the models, the quickest by past records first, so that as
many models as can be have results; models of which no record tells come after those, in the order of the matrix. A
model's draws follow its training. A cell whose time, as far as it is known, would end beyond the budget is not begun; a
cell that is running when the budget ends is stopped, and its training goes on from its last checkpoint in the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.estimates import Estimator
from bench.job import Job
from bench.matrix import ENDPOINTS

_UNKNOWN = float("inf")
Jobs = tuple[Sequence[Job], Sequence[Job]]
"""Trainings and draws."""


@dataclass
class Unit:
    """What is to do of one training: itself, unless it is done, and its draws."""

    train_key: str
    training: Job | None = None
    draws: list[Job] = field(default_factory=list)

    @property
    def some_job(self) -> Job:
        """Any of its jobs, which all tell model, data set and seed."""
        return self.training or self.draws[0]


@dataclass
class Allowance:
    """So much time, from now on."""

    seconds: float
    estimator: Estimator
    trained: set[str]  # keys of trainings that lack nothing but their measurements
    rounds: Mapping[str, int]  # train_key -> which seed of its model it is
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.end = self.clock() + self.seconds

    @property
    def remaining(self) -> float:
        """Seconds, never below 0."""
        return max(0.0, self.end - self.clock())

    def admits(self, job: Job, and_then: Sequence[Job] = ()) -> bool:
        """Whether it can end in time, and with a training the quickest of its draws, without which it shows nothing."""
        return self.remaining > 0 and self.takes(job, 0.0) + self._quickest(and_then) <= self.remaining

    def passes(
        self, trainings: Sequence[Job], draws: Sequence[Job], slots: int
    ) -> Iterator[tuple[list[Job], list[Job]]]:
        """Trainings, as many as run side by side, and the draws from them; the most valuable first."""
        waiting = units(trainings, draws)
        while waiting:
            waiting = self.in_order(waiting)  # anew, by what was learned meanwhile
            now, waiting = waiting[:slots], waiting[slots:]
            yield [u.training for u in now if u.training is not None], [draw for u in now for draw in u.draws]

    def in_order(self, waiting: Sequence[Unit]) -> list[Unit]:
        """By round, references first, then by time; a teacher before those who learn from it."""
        ranked = sorted(waiting, key=self._rank)  # stable: the matrix's order where nothing else decides
        by_key = {unit.train_key: unit for unit in ranked}
        found: dict[str, Unit] = {}

        def add(unit: Unit) -> None:
            teacher = unit.training.teacher if unit.training is not None else None
            if teacher is not None and teacher.train_key in by_key:
                add(by_key[teacher.train_key])
            found.setdefault(unit.train_key, unit)

        for unit in ranked:
            add(unit)
        return list(found.values())

    def _rank(self, unit: Unit) -> tuple[int, bool, float]:
        cell = unit.some_job.cell
        jobs = [*([] if unit.training is None else [unit.training]), *unit.draws]
        return self.rounds[unit.train_key], cell.model not in ENDPOINTS, sum(self.takes(j, _UNKNOWN) for j in jobs)

    def takes(self, job: Job, unknown: float) -> float:
        """Its estimate in seconds, or `unknown` if there is none."""
        estimate = self.estimator.of(job, job.key in self.trained)
        return unknown if estimate is None else estimate.seconds

    def _quickest(self, draws: Sequence[Job]) -> float:
        return min((self.takes(draw, 0.0) for draw in draws), default=0.0)


def units(trainings: Sequence[Job], draws: Sequence[Job]) -> list[Unit]:
    """What is to do, a unit a training, in the order in which they come."""
    found: dict[str, Unit] = {}
    for job in trainings:
        found.setdefault(job.train_key, Unit(job.train_key)).training = job
    for draw in draws:
        found.setdefault(draw.train_key, Unit(draw.train_key)).draws.append(draw)
    return list(found.values())


def rounds_of(trainings: Sequence[Job]) -> dict[str, int]:
    """train_key -> 0 for the first seed of its model, data set and config that the plan names, 1 for the second, ..."""
    seen: dict[tuple[str, ...], int] = {}
    found: dict[str, int] = {}
    for job in trainings:
        cell = job.cell
        kind = (cell.model, cell.dataset, repr(sorted(cell.config.items())), cell.budget.label())
        found[job.train_key] = seen[kind] = seen.get(kind, -1) + 1
    return found


def fitting(
    seconds: float, estimator: Estimator, trained: set[str], rounds: Mapping[str, int], todo: Jobs, slots: int
) -> set[str]:
    """Keys of the cells that so many seconds suffice for, if all take their estimates, and unknown ones no time."""
    now = [0.0]
    allowance = Allowance(seconds, estimator, trained, rounds, clock=lambda: now[0])
    begun, left = set[str](), set[str]()
    for trainings, draws in allowance.passes(*todo, slots):
        spent = 0.0
        for job in trainings:
            teacher = None if job.teacher is None else job.teacher.train_key
            if teacher in left or not allowance.admits(job, [d for d in draws if d.train_key == job.train_key]):
                left.add(job.train_key)
                continue
            begun.add(job.key)
            spent = max(spent, allowance.takes(job, 0.0))
        now[0] += spent
        for draw in draws:
            if draw.train_key not in left and allowance.admits(draw):
                begun.add(draw.key)
                now[0] += allowance.takes(draw, 0.0) / (1 if draw.timed else slots)
    return begun
