"""From what a matrix wants to jobs: models imported, configs checked, keys computed, and what is already done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from baselines import checkpoint, registry
from baselines.config import build_config, config_values, nearest
from baselines.contract import Fits
from baselines.data import catalogue as data_catalogue
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import keys
from bench.families import family_keys
from bench.job import Job, Setup
from bench.matrix import SAMPLES, Wanted
from bench.record import Cell, Record


@dataclass(frozen=True)
class Training:
    """One training job and the draws from its checkpoint."""

    job: Job
    draws: tuple[Job, ...]


@dataclass
class Todo:
    """What a run still has to do."""

    trainings: list[Job] = field(default_factory=list)
    draws: list[Job] = field(default_factory=list)
    cached: list[Job] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@cache
def open_dataset(name: str, data_dir: Path | None) -> tuple[Dataset, str]:
    """A data set and its fingerprint, loaded once a process."""
    dataset = data_catalogue.load(name, data_dir)
    return dataset, dataset.fingerprint()


def plan(wanted: Sequence[Wanted], setup: Setup) -> list[Training]:
    """Import the models and data sets, check every config and draw, and compute the keys.

    Raises:
        UserError: for an unknown model, data set, sampler or config key, or unusable data.
    """
    kept = [item for item in wanted if not _repeats_an_endpoint(item, wanted)]
    return [_training(item, setup, _is_timed(item, kept, setup)) for item in kept]


def _is_timed(item: Wanted, wanted: Sequence[Wanted], setup: Setup) -> bool:
    """Speed does not hang on the weights: a matrix may time the first seeds alone."""
    mine = [other.seed for other in wanted if (other.model, other.dataset) == (item.model, item.dataset)]
    return setup.timed_seeds is None or mine.index(item.seed) < setup.timed_seeds


def _repeats_an_endpoint(item: Wanted, wanted: Sequence[Wanted]) -> bool:
    """Real images are the same under every seed: the floor is measured once a data set."""
    if item.model != "real":
        return False
    first = next(other for other in wanted if other.model == "real" and other.dataset == item.dataset)
    return item is not first


def _training(wanted: Wanted, setup: Setup, timed: bool) -> Training:
    entry = registry.load(wanted.model)
    dataset, fingerprint = open_dataset(wanted.dataset, setup.data_dir)
    config = config_values(build_config(entry.model.config, wanted.config, wanted.model))
    budget = _budget(entry, wanted, dataset)
    cell = Cell(wanted.model, dataset.name, budget, wanted.seed, config)
    train_key = keys.train_key(
        model_source(entry), config, fingerprint, config_values(budget), wanted.seed, setup.device
    )
    samples = setup.samples or min(SAMPLES, len(dataset.development))
    families = family_keys(dataset, setup)
    measure: dict[str, float] = {"samples": samples, "batch": setup.batch}
    if timed:
        measure |= {"threads": setup.threads, "latency_s": setup.latency_s}
    bound = {"likelihood_images": setup.likelihood_images} if setup.likelihood_images else {}
    train = Job(cell, keys.cell_key(train_key, None, bound), train_key, samples, setup, families["train"])
    draws = tuple(
        Job(
            replace(cell, draw=draw),
            keys.cell_key(train_key, config_values(draw), measure),
            train_key,
            samples,
            setup,
            families["draw"],
            timed,
            times_likelihood=timed and index == 0,
        )
        for index, draw in enumerate(wanted.draws)
        if _checked(draw, entry, wanted.model)
    )
    return Training(train, draws)


def _budget(entry: registry.Entry, wanted: Wanted, dataset: Dataset) -> Budget:
    """A model that is fitted in closed form sees the data once, whatever the matrix gives the others."""
    if isinstance(entry.model.build, type) and issubclass(entry.model.build, Fits):
        return Budget(images=len(dataset.development if entry.model.build.fits_development else dataset.train))
    return wanted.budget


def _checked(draw: Draw, entry: registry.Entry, model: str) -> bool:
    samplers = getattr(entry.model.build, "samplers", (draw.sampler,))
    if draw.sampler not in samplers:
        raise UserError(f"{model}: no sampler {draw.sampler!r}{nearest(draw.sampler, samplers)}")
    return True


def model_source(entry: registry.Entry) -> str:
    """Hash of the model's own code and of the trainer's, with all they import inside `baselines`."""
    roots = ["baselines.trainer"] if entry.module.endswith(".py") else ["baselines.trainer", entry.module]
    packages = ("baselines", entry.module.split(".")[0])
    return keys.source_key(roots, packages, [registry.module_file(entry)])


def what_is_left(trainings: Sequence[Training], records: Mapping[str, Record]) -> Todo:
    """Sort jobs into cached and still to do; a damaged checkpoint that is needed is set aside and noted."""
    todo = Todo()
    for training in trainings:
        draws = [job for job in training.draws if not is_done(job, records)]
        train = not is_done(training.job, records)
        if draws and not train:
            train = not _has_checkpoint(training.job, todo)
        elif train:
            _has_checkpoint(training.job, todo)
        todo.trainings += [training.job] if train else []
        todo.draws += draws
        todo.cached += [] if train else [training.job]
        todo.cached += [job for job in training.draws if job not in draws]
    return todo


def is_done(job: Job, records: Mapping[str, Record]) -> bool:
    """Whether a record answers this job in full: same key, succeeded, by the metrics as they are now."""
    record = records.get(job.key)
    return record is not None and record.status == "ok" and dict(record.metric_keys) == dict(job.metric_keys)


def _has_checkpoint(job: Job, todo: Todo) -> bool:
    for stem in ("model", "state"):
        try:
            found = checkpoint.load(job.checkpoint_folder, stem)
        except checkpoint.CorruptCheckpointError as error:
            moved = checkpoint.set_aside(job.checkpoint_folder, stem)
            names = ", ".join(str(path) for path in moved)
            todo.notes.append(f"corrupt checkpoint of {job.cell.label()}: {error}; moved to {names}; training again")
            continue
        if stem == "model" and found is not None:
            return True
    return False


def families_table(trainings: Sequence[Training]) -> dict[str, Any]:
    """Family, title and source of every model, for the report, which imports none of them."""
    table = {}
    for training in trainings:
        entry = registry.load(training.job.cell.model)
        table[entry.name] = {"family": entry.family, "title": entry.model.title, "source": entry.model.source}
    return table
