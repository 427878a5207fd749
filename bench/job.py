"""One job: a cell with everything a process needs to make its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.record import Cell


@dataclass(frozen=True)
class Setup:
    """What holds for a whole run."""

    results: Path
    device: str  # cpu | cuda
    data_dir: Path | None = None
    weights: Path | None = None  # of the extractor's network
    extractor: str | None = None  # None: the data set's own
    samples: int | None = None
    likelihood_images: int | None = None
    likelihoods: tuple[str, ...] = ()  # asked for beside those that are always taken
    metrics: tuple[str, ...] | None = None  # families to take; None: all
    batch: int = 500
    threads: int = 1
    latency_s: float = 1.0
    timed_seeds: int | None = None
    side_by_side: int = 1  # trainings at a time
    time_limit_s: float = 3600.0
    memory_limit_mb: int | None = None  # MiB of main memory that a cell may take; None: any
    tensorboard: Path | None = None  # folder of event files, written while training
    mlflow: str | None = None  # address of the store that curves are told to while training


def with_absolute_paths(setup: Setup) -> Setup:
    """The same run, as a process in another working directory has to be told of it."""
    paths = (setup.data_dir, setup.weights, setup.tensorboard)
    data_dir, weights, tensorboard = (None if path is None else path.absolute() for path in paths)
    results = setup.results.absolute()
    return replace(setup, results=results, data_dir=data_dir, weights=weights, tensorboard=tensorboard)


@dataclass(frozen=True)
class Job:
    """A training (cell.draw is None) or one draw from its checkpoint."""

    cell: Cell
    key: str
    train_key: str
    samples: int  # N
    setup: Setup
    metric_keys: Mapping[str, str]  # metric family -> its code and inputs, as they are now
    timed: bool = True  # whether the sampler is timed, which needs the machine for itself
    times_likelihood: bool = False  # whether this draw's quiet minute also times the likelihood, once a training
    teacher: Job | None = None  # the training whose checkpoint this training learns from
    variant: str = ""  # what sets its config apart from the run's others of the model

    @property
    def label(self) -> str:
        """Its cell in words, no other job's of the run."""
        return self.cell.label(self.variant)

    @property
    def checkpoint_folder(self) -> Path:
        """Where the training's state and final weights lie."""
        return self.setup.results / "checkpoints" / self.train_key
