"""What an executor is: where the cells of a run are done. This machine's own is here; `cluster` has Ray's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.executors.local import Outcome, run_jobs
from bench.job import Job
from bench.record import Record
from bench.worker import run_job

Pair = tuple[Job, Record | None]
"""A job, and the cell's earlier record, whose samples and timings are kept if still valid."""

OnProgress = Callable[[Pair, tuple[str, int, int]], None]
"""Told (phase, done, total) of a job."""


class Executor(Protocol):
    """Does jobs, each in a process of its own."""

    @property
    def side_by_side(self) -> int:
        """The most trainings at a time on one machine."""

    def run(
        self, pairs: Sequence[Pair], alone: bool, time_limit_s: float, on_progress: OnProgress
    ) -> Iterator[Outcome[Pair]]:
        """Do every job and yield outcomes as they come; leaving the iterator early ends what runs.

        alone: whether a job wants its machine for itself, since its speed is measured.
        """


@dataclass(frozen=True)
class Local:
    """This machine: so many jobs at a time."""

    side_by_side: int

    def run(
        self, pairs: Sequence[Pair], alone: bool, time_limit_s: float, on_progress: OnProgress
    ) -> Iterator[Outcome[Pair]]:
        """See `Executor`."""
        slots = 1 if alone else self.side_by_side
        memory_mb = pairs[0][0].setup.memory_limit_mb if pairs else None
        return run_jobs(pairs, run_job, slots, time_limit_s, on_progress, memory_mb)
