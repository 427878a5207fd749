"""Runs a matrix: plans it, trains what is missing, measures every draw, and keeps a record of each cell."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from baselines.errors import UserError
from bench import durable, provenance, store
from bench.allowance import Allowance, rounds_of
from bench.estimates import Estimator, past_records
from bench.executors.executor import Executor
from bench.executors.local import Outcome
from bench.job import Job, Setup
from bench.matrix import Wanted
from bench.plain_text import printable
from bench.plan import Todo, Training, families_table, lacks_files, plan, stale_jobs, what_is_left
from bench.progress import Display, duration
from bench.record import Record
from bench.teachers import waves

STALE = "code, config, data or measuring options changed"


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    results: Path
    cached: int
    done: int
    failed: tuple[Record, ...]
    missing: Mapping[str, str] = field(default_factory=dict)  # data sets that were left out, and why
    left: tuple[str, ...] = ()  # labels of cells for which the time budget did not suffice


def run_matrix(
    name: str,
    title: str,
    everything: Sequence[Wanted],
    selected: Sequence[Wanted],
    setup: Setup,
    executor: Executor,
    console: Console,
    missing: Collection[str] = (),
    teachers: Sequence[Wanted] = (),
    within_s: float | None = None,
) -> Summary:
    """Run what is selected and not yet done.

    Args:
        name: of the matrix, for the report.
        title: of the report.
        everything: what the whole matrix wants; its records belong to the report even if not selected now.
        selected: what this run is asked for.
        setup: device, folders and measuring options.
        executor: where cells run, some at a time with one thread each. Draws are measured alone on their machine.
        console: where progress goes.
        missing: data sets of the matrix that are not on this machine; their earlier records stay in the report.
        teachers: where teachers are looked for that `selected` does not name.
        within_s: a time budget for all of it; None: none.

    Raises:
        UserError: for bad input, a results folder in use, or one that cannot be written.
    """
    with locked(setup.results):
        trainings = plan(selected, setup, teachers)
        loaded = store.load(setup.results)
        for problem in loaded.problems:
            console.print(f"note: {printable(problem)}", style="yellow", markup=False, soft_wrap=True)
        records = {record.key: record for record in loaded.records}
        todo = what_is_left(trainings, records)
        for note in todo.notes:
            console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
        _announce(todo, records, console)
        _write_run(name, title, trainings, everything, selected, setup, records, missing)
        allowance = _allowance(within_s, trainings, todo, setup)
        with Display(console, len(todo.trainings) + len(todo.draws)) as display:
            execution = _Execution(records, executor, display, allowance)
            execution.run(todo)
        failed = {id(record): record for record in execution.failed.values()}
        left = {job.label: job for job in execution.left.values()}
        return Summary(setup.results, len(todo.cached), execution.done, tuple(failed.values()), left=tuple(left))


def _allowance(within_s: float | None, trainings: Sequence[Training], todo: Todo, setup: Setup) -> Allowance | None:
    if within_s is None:
        return None
    estimator = Estimator(past_records(setup.results), setup)
    return Allowance(within_s, estimator, todo.trained, rounds_of([training.job for training in trainings]))


def _announce(todo: Todo, records: Mapping[str, Record], console: Console) -> None:
    jobs = [*todo.trainings, *todo.draws]
    stale, lacking = len(stale_jobs(todo, records)), sum(lacks_files(job, records) for job in jobs)
    trained = len(todo.trained)
    text = f"{len(todo.cached)} cells done before, {len(todo.trainings) - trained} to train"
    text += f", {trained} trained before and to measure" if trained else ""
    text += f", {len(todo.draws)} draws to measure"
    text += f", {stale} of them stale ({STALE})" if stale else ""
    console.print(text + (f", {lacking} of them with files missing" if lacking else ""))


class _Execution:
    """Runs what is to do, wave after wave, and keeps count."""

    def __init__(
        self, records: Mapping[str, Record], executor: Executor, display: Display, allowance: Allowance | None
    ) -> None:
        self.records, self.executor, self.display, self.allowance = records, executor, display, allowance
        self.done = 0
        self.failed: dict[str, Record] = {}
        self.left: dict[str, Job] = {}  # for want of time, by key; a training by its train_key as well

    def run(self, todo: Todo) -> None:
        """All of it, or the most valuable first while there is time."""
        if self.allowance is None:
            self._pass(todo.trainings, todo.draws)
            return
        for trainings, draws in self.allowance.passes(todo.trainings, todo.draws, self.executor.side_by_side):
            self._pass(trainings, draws)

    def _pass(self, trainings: Sequence[Job], draws: Sequence[Job]) -> None:
        for wave in waves(trainings):
            able = []
            for job in wave:
                teacher = None if job.teacher is None else job.teacher.train_key
                if teacher in self.failed:
                    why = self.failed[teacher]
                    self.failed[job.train_key] = _without(job, f"its teacher {why.cell.label()}", why, self.display)
                elif teacher in self.left or not self._admits(job, [d for d in draws if d.train_key == job.train_key]):
                    self._leave(job)
                else:
                    able.append(job)
            self._run(able, alone=False)
        ready = []
        for job in draws:
            if job.train_key in self.failed:
                self.failed[job.key] = _without(job, "its training", self.failed[job.train_key], self.display)
            elif job.train_key in self.left:
                self._leave(job)
            else:
                ready.append(job)
        for timed in (False, True):
            self._run([job for job in ready if job.timed == timed], alone=timed)

    def _run(self, jobs: Sequence[Job], alone: bool) -> None:
        """Within a time budget as many at a time as run side by side, so that each is weighed when it would begin."""
        side_by_side = 1 if alone else self.executor.side_by_side
        size = len(jobs) if self.allowance is None else side_by_side
        for first in range(0, len(jobs), size or 1):
            now = []
            for job in jobs[first : first + size]:
                if job.cell.draw is None or self._admits(job):
                    now.append(job)
                else:
                    self._leave(job)
            for job, record in _run(now, self.executor, alone, self.records, self.display, self.allowance):
                if record is None:
                    self._leave(job)
                    continue
                if self.allowance is not None:
                    self.allowance.estimator.learn(record)
                self.done += record.status == "ok"
                if record.status != "ok":
                    self.failed[job.key] = record
                    if job.cell.draw is None:
                        self.failed[job.train_key] = record

    def _admits(self, job: Job, and_then: Sequence[Job] = ()) -> bool:
        return self.allowance is None or self.allowance.admits(job, and_then)

    def _leave(self, job: Job) -> None:
        self.left[job.key] = job
        if job.cell.draw is None:
            self.left[job.train_key] = job
        self.display.finished(job.label, "left for want of time")


def _without(job: Job, what: str, why: Record, display: Display) -> Record:
    """The record of a job that cannot be done, since what it needs was not."""
    how = "timed out" if why.status == "timeout" else "failed"
    record = _not_ok(job, "failed", f"{what} {how}: see that cell")
    store.append(job.setup.results, record)
    display.finished(job.label, f"failed, since {what} did")
    return record


def _run(
    jobs: Sequence[Job],
    executor: Executor,
    alone: bool,
    records: Mapping[str, Record],
    display: Display,
    allowance: Allowance | None,
) -> Iterator[tuple[Job, Record | None]]:
    """Run jobs side by side, or each alone on its machine, and write each one's record as soon as it ends.

    None in place of a record if the time budget ended first.
    """

    def on_progress(job: Job, progress: tuple[str, int, int]) -> None:
        display.progress(job.label, *progress)

    if not jobs:
        return
    pairs = [(job, records.get(job.key)) for job in jobs]
    own = jobs[0].setup.time_limit_s
    limit = own if allowance is None else min(own, allowance.remaining)
    outcomes = executor.run(pairs, alone, limit, lambda pair, progress: on_progress(pair[0], progress))
    for outcome in outcomes:
        job = outcome.job[0]
        if outcome.status == "timeout" and limit < own:
            yield job, None
            continue
        record = _record_of(job, outcome)
        store.append(job.setup.results, record)
        problem = record.error.splitlines()[0] if record.error else ""
        text = f"{record.status} in {duration(outcome.seconds)}" if record.status == "ok" else record.status
        display.finished(job.label, f"{text}: {problem}" if problem else text)
        yield job, record


def _record_of(job: Job, outcome: Outcome[tuple[Job, Record | None]]) -> Record:
    if outcome.status == "ok":
        record: Record = outcome.result
        return record
    return _not_ok(job, outcome.status, outcome.error)


def _not_ok(job: Job, status: str, error: str) -> Record:
    assert status in ("failed", "timeout")
    return Record(
        job.key,
        job.train_key,
        "failed" if status == "failed" else "timeout",
        job.cell,
        provenance=provenance.collect(),
        error=error,
    )


def _write_run(
    name: str,
    title: str,
    trainings: Sequence[Training],
    everything: Sequence[Wanted],
    selected: Sequence[Wanted],
    setup: Setup,
    records: Mapping[str, Record],
    missing: Collection[str],
) -> None:
    """Say in run.json which records make up the report: the whole matrix's, and what was selected beyond it."""
    beyond = [item for item in everything if item not in selected]
    whole = list(trainings)
    for item in beyond:
        try:
            whole += plan([item], setup, everything)
        except UserError:  # a model of the matrix that cannot be built here is not this run's concern
            continue
    keys = list(dict.fromkeys(job.key for training in whole for job in (training.job, *training.draws)))
    kept = [key for key, r in records.items() if key not in keys and _is_extra(r, whole, missing)]
    before = store.read_run(setup.results).get("families", {})
    store.write_run(
        setup.results,
        {
            "schema": 1,
            "matrix": name,
            "title": title,
            "keys": [*keys, *kept],
            "missing": sorted(missing),
            "families": {**before, **families_table(whole)},
        },
    )


def _is_extra(record: Record, trainings: Sequence[Training], missing: Collection[str]) -> bool:
    """A model that was added by name in an earlier run stays in the report; an older version of a cell does not.

    Neither goes what was measured of data that is not here now.
    """
    return record.cell.dataset in missing or record.cell.model not in {
        training.job.cell.model for training in trainings
    }


@contextmanager
def locked(results: Path) -> Iterator[None]:
    """Hold the results folder, so that two runs never train the same cell twice, and see that it can be written.

    Raises:
        UserError: if it is in use, cannot be written, or has no room.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        handle = os.open(results / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise UserError(
            f"results folder {results}: cannot write to it ({error.strerror}); choose another with --results DIR"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        busy = error.errno in (errno.EAGAIN, errno.EACCES)
        why = "another run is using it; wait" if busy else f"its file system knows no locks ({error.strerror})"
        raise UserError(f"results folder {results}: {why}, or choose --results DIR") from None
    try:
        durable.check_writable(results)
        durable.sweep(results)
        with durable.spare_room(results):
            yield
    finally:
        os.close(handle)
