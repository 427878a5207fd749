"""Running a matrix: what both the command line and `bench.run` call."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from baselines.errors import UserError
from baselines.sharing import ALONE
from baselines.types import Budget
from bench import store, tracking
from bench.allowance import fitting as would_fit
from bench.allowance import rounds_of
from bench.device import usable_device
from bench.estimates import Estimator, Total, past_records
from bench.executors.cluster import Cluster
from bench.job import Job
from bench.plan import (
    lacks_files,
    plan,
    stale_jobs,
    what_is_left,
)
from bench.prepare import DEFAULT_MATRIX, opened, prepare
from bench.prepare import Options as Options
from bench.prepare import results_folder as results_folder
from bench.progress import duration
from bench.runner import Summary, run_matrix
from bench.team import Joined
from bench.training import train_matrix


def run(
    matrix: str = DEFAULT_MATRIX,
    *,
    models: Sequence[str] | str = (),
    datasets: Sequence[str] | str = (),
    seeds: Sequence[int] | int = (),
    budget: str | int | None = None,
    device: str = "auto",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    results: Path | str | None = None,
    data_dir: Path | str | None = None,
    weights: Path | str | None = None,
    extractor: str | None = None,
    jobs: int | None = None,
    executor: str = "local",
    address: str | None = None,
    within: str | float | None = None,
    tensorboard: Path | str | None = None,
    mlflow: str | None = None,
    memory_limit_mb: int | None = None,
) -> pd.DataFrame:
    """Run a matrix, keep its records, and return every measurement in its results folder, one a row.

    What is already done is not done again. Cells that failed have a record and no rows; their records are in
    `frame.attrs["failed"]`.

    Args:
        matrix: a shipped name or the path of a TOML file.
        models: only these (and the endpoints); names, dotted modules or .py files.
        datasets: instead of the matrix's, such as "digits", "mnist", "folder:photos".
        seeds: instead of the matrix's.
        budget: of every model: training images ("400000", "400k") or seconds ("60s", not reproducible).
        device: auto, cpu or cuda.
        overrides: model -> config keys; "training.batch_size" names a nested one.
        results: the folder of records; results/<matrix> by default.
        data_dir: where data sets on disk are looked for; the environment's TRILEMMA_DATA by default.
        weights: Inception weights, for FID.
        extractor: instead of the data set's own, such as "inception" or "pixels8x8".
        jobs: trainings at a time, one thread each; by default one for each usable core, one on a GPU.
        executor: local (processes of this machine) or ray (the nodes of a Ray cluster).
        address: of the Ray cluster's head, host:port, or "auto", the default.
        within: a time budget for all of it, in seconds or such as "30m" or "2h": the most valuable cells come first,
            and what it does not suffice for is in `frame.attrs["left"]`.
        tensorboard: a folder for event files, written while training (extra `tensorboard`).
        mlflow: address of a tracking store that curves are told to while training (extra `mlflow`).
        memory_limit_mb: MiB of main memory that a cell may take, instead of the matrix's; a cell that takes more fails.

    Raises:
        UserError: for bad input, with what was expected, what was got and what to do.
    """
    summary = execute(
        Options(
            matrix,
            _listed("models", models, str),
            _listed("datasets", datasets, str),
            _listed("seeds", seeds, int),
            None if budget is None else Budget.parse(str(budget)),
            device,
            overrides or {},
            _path("results", results),
            _path("data_dir", data_dir),
            _path("weights", weights),
            extractor,
            jobs,
            executor,
            address,
            None if within is None else seconds(str(within)),
            _path("tensorboard", tensorboard),
            mlflow,
            memory_limit_mb,
        ),
        Console(stderr=True),
    )
    frame = store.frame(store.load(summary.results).records)
    frame.attrs["failed"] = summary.failed
    frame.attrs["left"] = summary.left
    return frame


def seconds(text: str) -> float:
    """Read `90`, `90s`, `30m` or `2h`, a time budget.

    Raises:
        UserError: if it is none of these, or not above 0.
    """
    number, unit = (text[:-1], text[-1:]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        found = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise UserError(f"within: expected a time such as 90s, 30m or 2h, got {text!r}")
    return found


def _listed(name: str, values: Any, kind: type) -> list[Any]:
    """A list; one value alone is a list of one."""
    found = [values] if isinstance(values, str | int) else list(values)
    wrong = next((value for value in found if not isinstance(value, kind) or isinstance(value, bool)), None)
    if wrong is not None:
        raise UserError(f"{name}: expected {kind.__name__} values, got {wrong!r}")
    return found


def _path(name: str, value: Any) -> Path | None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise UserError(f"{name}: expected a path, got {value!r}")
    return None if value is None else Path(value)


def execute(options: Options, console: Console) -> Summary:
    """Run what is missing, showing progress on `console`.

    Raises:
        UserError: for bad input.
    """
    with opened(options) as (executor, device):
        ready = prepare(options, device, executor.side_by_side)
        tracking.check(ready.setup)
        tell_missing(ready.missing, console)
        tell_missing(ready.unfit, console)
        if isinstance(executor, Cluster):
            console.print(executor.about(), markup=False, soft_wrap=True)
            if options.tensorboard is not None:
                note = "note: each node writes its event files to its own"
                note += f" {ready.setup.tensorboard}; name a folder that all share to see them together"
                console.print(note, style="yellow", markup=False, soft_wrap=True)
        summary = run_matrix(
            ready.name,
            ready.title,
            ready.everything,
            ready.selected,
            ready.setup,
            executor,
            console,
            ready.missing,
            ready.teachers,
            options.within_s,
        )
    return replace(summary, missing=ready.missing)


def train(options: Options, console: Console, together: bool) -> int:
    """Train what has no checkpoint, and measure nothing; gives how many trainings were left out.

    together: whether this process is one of several of a torchrun, which share each training; some models cannot.

    Raises:
        UserError: for bad input.
    """
    device = usable_device(options.device)
    with Joined(device) if together else nullcontext(ALONE) as team:
        ready = prepare(options, device, 1)
        if team.rank == 0:
            tell_missing(ready.missing, console)
            tell_missing(ready.unfit, console)
        return train_matrix(ready.selected, ready.teachers, ready.setup, team, console)


def tell_missing(missing: Mapping[str, str], console: Console) -> None:
    """A line for each data set, or model on a data set, that the run goes without."""
    for dataset, reason in missing.items():
        console.print(f"note: without {dataset}: {reason}", style="yellow", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    rows: list[dict[str, str]]  # cell, budget, state and time of each; * marks a time by another machine's records
    total: Total
    slots: int  # trainings at a time


def dry_run(options: Options) -> list[dict[str, str]]:
    """The rows of `forecast`.

    Raises:
        UserError: for bad input.
    """
    return forecast(options).rows


def forecast(options: Options) -> DryRun:
    """The cells of a run in their order, each with its budget, whether it is done and its time; nothing is run.

    Raises:
        UserError: for bad input.
    """
    with opened(options) as (executor, device):
        slots = executor.side_by_side
        ready = prepare(options, device, slots)
    trainings = plan(ready.selected, ready.setup, ready.teachers)
    folder = ready.setup.results
    records = {r.key: r for r in store.load(folder).records} if folder.is_dir() else {}
    todo = what_is_left(trainings, records)
    cached = {job.key for job in todo.cached}
    stale = stale_jobs(todo, records)

    def state(job: Job) -> str:
        if job.key in cached:
            return "done"
        what = "to train" if job.cell.draw is None else "to measure"
        what = "trained before, to measure" if job.key in todo.trained else what
        why = "stale, " if job.key in stale else "files missing, " if lacks_files(job, records) else ""
        return why + what

    estimator = Estimator(past_records(folder), ready.setup)

    begun = None
    if options.within_s is not None:
        rounds = rounds_of([training.job for training in trainings])
        jobs = todo.trainings, todo.draws
        begun = would_fit(options.within_s, estimator, todo.trained, rounds, jobs, slots)

    def estimated(job: Job) -> str:
        if job.key in cached:
            return ""
        estimate = estimator.of(job, job.key in todo.trained)
        return "?" if estimate is None else duration(estimate.seconds) + ("" if estimate.here else " *")

    left_out = [
        {"cell": cell, "budget": "–", "state": f"left out: {reason}", "time": ""}
        for cell, reason in [*((f"all of {name}", why) for name, why in ready.missing.items()), *ready.unfit.items()]
    ]
    rows = left_out + [
        {
            "cell": job.label,
            "budget": job.cell.budget.label() if job.cell.draw is None else f"{job.samples} samples",
            "state": state(job) if begun is None or job.key in begun | cached else f"{state(job)}, beyond the time",
            "time": estimated(job),
        }
        for training in trainings
        for job in (training.job, *training.draws)
    ]
    return DryRun(rows, estimator.total(todo.trainings, todo.draws, todo.trained, slots), slots)
