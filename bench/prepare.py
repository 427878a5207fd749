"""What a run is asked for, and what that comes to: its matrix expanded, its data found, the place where it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from baselines.types import Budget
from bench import matrix as matrices
from bench import provenance
from bench.device import usable_device
from bench.executors.cluster import Cluster
from bench.executors.executor import Executor, Local
from bench.executors.guard import can_watch_memory
from bench.job import Setup
from bench.left_out import available, fitting, possible
from bench.plan import check_likelihoods, forget_opened

DEFAULT_MATRIX = "quick"


@dataclass(frozen=True)
class Options:
    """What a run is asked for; `api.run` documents each."""

    matrix: str = DEFAULT_MATRIX
    models: Sequence[str] = ()
    datasets: Sequence[str] = ()
    seeds: Sequence[int] = ()
    budget: Budget | None = None
    device: str = "auto"
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: Path | None = None
    data_dir: Path | None = None
    weights: Path | None = None
    extractor: str | None = None
    jobs: int | None = None
    executor: str = "local"
    address: str | None = None
    within_s: float | None = None  # for the whole run
    tensorboard: Path | None = None
    mlflow: str | None = None
    memory_limit_mb: int | None = None  # instead of the matrix's


@dataclass(frozen=True)
class Prepared:
    name: str
    title: str
    everything: list[matrices.Wanted]
    selected: list[matrices.Wanted]
    teachers: list[matrices.Wanted]  # the matrix as it is selected from, all models of it
    setup: Setup
    missing: Mapping[str, str]  # data sets of the matrix that are not on this machine, and why
    unfit: Mapping[str, str]  # models on data sets of another task, and draws that this machine cannot make; and why


def results_folder(options: Options) -> Path:
    """Where the records of a run lie."""
    return options.results or Path("results") / matrices.load(options.matrix)[0]


@contextmanager
def opened(options: Options) -> Iterator[tuple[Executor, str]]:
    """Where the cells are to run, and on what kind of device."""
    if options.executor not in ("local", "ray"):
        raise UserError(f"--executor: expected local or ray, got {options.executor!r}")
    if options.executor == "ray":
        with Cluster(options.address or "auto", options.device, options.jobs) as cluster:
            yield cluster, cluster.device
        return
    if options.address is not None:
        raise UserError("--address: only --executor ray has one")
    device = usable_device(options.device)
    yield Local(options.jobs or (1 if device == "cuda" else provenance.cores())), device


def _watchable(limit: int | None, executor: str) -> int | None:
    if limit is not None and limit < 1:
        raise UserError(f"--memory-limit: expected at least 1 MiB, got {limit}")
    if limit is not None and executor == "local" and not can_watch_memory():
        raise UserError(
            "memory limit: this system does not tell what memory a process takes (Linux does); leave it out"
        )
    return limit


def prepare(options: Options, device: str, side_by_side: int) -> Prepared:
    forget_opened()
    name, content = matrices.load(options.matrix)
    selected = matrices.expand(
        content, options.models, options.datasets, options.seeds, options.budget, options.overrides
    )
    measure = content.measure
    setup = Setup(
        results=results_folder(options),
        device=device,
        data_dir=options.data_dir,
        weights=options.weights,
        extractor=options.extractor or measure.extractor,
        samples=measure.samples,
        likelihood_images=measure.likelihood_images,
        likelihoods=tuple(dict.fromkeys(measure.likelihoods)),
        metrics=None if measure.metrics is None else tuple(measure.metrics),
        batch=measure.batch,
        threads=measure.threads,
        latency_s=measure.latency_s,
        timed_seeds=measure.timed_seeds,
        side_by_side=side_by_side,
        time_limit_s=content.time_limit_s,
        memory_limit_mb=_watchable(
            content.memory_limit_mb if options.memory_limit_mb is None else options.memory_limit_mb, options.executor
        ),
        tensorboard=options.tensorboard,
        mlflow=options.mlflow,
    )
    everything, missing = matrices.expand(content), dict[str, str]()
    check_likelihoods([*everything, *selected], setup.likelihoods)
    if not options.datasets:  # a data set that is asked for by name has to be there
        selected, missing = available(selected, setup)
        everything = [item for item in everything if item.dataset not in missing]
    selected, unfit = fitting(selected, setup)
    selected, lacking = possible(selected, setup)
    everything, _ = possible(everything, setup)
    teachers, _ = possible(matrices.expand(content, (), options.datasets, options.seeds, options.budget), setup)
    return Prepared(name, content.title, everything, selected, teachers, setup, missing, {**unfit, **lacking})
