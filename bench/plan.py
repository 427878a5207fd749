"""From what a matrix wants to jobs: models imported, configs checked, keys computed, and what is already done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from baselines import checkpoint, registry
from baselines.config import build_config, config_values, nearest
from baselines.contract import Fits, GenerativeModel, HasLatent, HasLikelihood
from baselines.data import catalogue as data_catalogue
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import families, keys
from bench.artifacts import is_whole
from bench.families import family_keys
from bench.job import Job, Setup
from bench.matrix import SAMPLES, Wanted
from bench.record import Cell, Record
from bench.teachers import teacher_of
from bench.variants import told_apart


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
    trained: set[str] = field(default_factory=set)  # keys of the trainings that lack nothing but their measurements
    notes: list[str] = field(default_factory=list)


@cache
def open_dataset(name: str, data_dir: Path | None) -> tuple[Dataset, str]:
    """A data set and its fingerprint, loaded once a process."""
    dataset = data_catalogue.load(name, data_dir)
    return dataset, dataset.fingerprint()


def misfit(entry: registry.Entry, dataset: Dataset) -> str:
    """How the tasks of a model and of a data set differ."""
    offered = ", ".join(sorted(dataset.tasks)).replace("_", " ")
    return f"the model's task is {entry.model.task.replace('_', ' ')}, the data set offers {offered}"


def _samples(dataset: Dataset) -> int:
    """N of all draws of a data set; no more than it has requests, since a translation has one answer to each."""
    requests = dataset.test.requests
    real = len(dataset.train) + len(dataset.val)
    return min(SAMPLES, real, *([] if requests is None else [len(requests)]))


def forget_opened() -> None:
    """Look at data sets and weights anew: between two runs of one process a user may have changed them."""
    open_dataset.cache_clear()
    families.forget_opened()


def plan(wanted: Sequence[Wanted], setup: Setup, teachers: Sequence[Wanted] = ()) -> list[Training]:
    """Import the models and data sets, check every config and draw, and compute the keys.

    A model that learns from another one's checkpoint brings that one's training with it, which stands before it.

    Args:
        wanted: what is to be run.
        setup: device, folders and measuring options.
        teachers: the whole matrix: where teachers are looked for that `wanted` does not name; and which of its seeds
            are timed does not hang on what is selected.

    Raises:
        UserError: for an unknown model, data set, sampler or config key, unusable data, or a teacher that is not there.
    """
    kept = [item for item in wanted if not _repeats_an_endpoint(item, wanted)]
    found: dict[str, Training] = {}
    for item in kept:
        timed = _is_timed(item, teachers if item in teachers else kept, setup)
        whole = _training(item, setup, timed, [*kept, *teachers])
        for training in (*_taught_by(whole.job), whole):
            same = found.get(training.job.key)
            found[training.job.key] = training if same is None else _merged(same, training)
    return _told_apart(list(found.values()))


def _told_apart(trainings: Sequence[Training]) -> list[Training]:
    """The trainings, each job with what sets its config apart from others of its model and data set."""
    names = told_apart([training.job.cell for training in trainings])
    return [
        Training(replace(t.job, variant=name), tuple(replace(draw, variant=name) for draw in t.draws))
        for t, name in zip(trainings, names, strict=True)
    ]


def _taught_by(job: Job) -> list[Training]:
    """The trainings of a job's teacher and of that one's, first things first."""
    return [] if job.teacher is None else [*_taught_by(job.teacher), Training(job.teacher, ())]


def _merged(first: Training, second: Training) -> Training:
    """Two lines of a matrix that train the same model in the same way: one training, the draws of both."""
    return replace(first, draws=tuple({job.key: job for job in (*second.draws, *first.draws)}.values()))


def _is_timed(item: Wanted, wanted: Sequence[Wanted], setup: Setup) -> bool:
    """Speed does not hang on the weights: a matrix may time the first seeds alone."""
    mine = list(
        dict.fromkeys(other.seed for other in wanted if (other.model, other.dataset) == (item.model, item.dataset))
    )
    return setup.timed_seeds is None or mine.index(item.seed) < setup.timed_seeds


def _repeats_an_endpoint(item: Wanted, wanted: Sequence[Wanted]) -> bool:
    """Real images are the same under every seed: the floor is measured once a data set."""
    if item.model != "real":
        return False
    first = next(other for other in wanted if other.model == "real" and other.dataset == item.dataset)
    return item is not first


def _training(wanted: Wanted, setup: Setup, timed: bool, candidates: Sequence[Wanted]) -> Training:
    entry = registry.load(wanted.model)
    setup = setup if wanted.batch is None else replace(setup, batch=wanted.batch)
    dataset, fingerprint = open_dataset(wanted.dataset, setup.data_dir)
    built = build_config(entry.model.config, wanted.config, wanted.model)
    config = config_values(built)
    budget = _budget(entry, wanted, dataset)
    cell = Cell(wanted.model, dataset.name, budget, wanted.seed, config)
    teacher = _teacher(entry, built, wanted, setup, candidates)
    taught_by = None if teacher is None else teacher.train_key
    train_key = keys.train_key(
        model_source(entry), config, fingerprint, config_values(budget), wanted.seed, setup.device, taught_by
    )
    if entry.model.task not in dataset.tasks:
        raise UserError(f"{entry.name} on {dataset.name}: {misfit(entry, dataset)}")
    samples = setup.samples or _samples(dataset)
    families = family_keys(dataset, setup, _may_have_latent(entry), _draws_meanwhile(config))
    measure: dict[str, float] = {"batch": setup.batch}
    if timed:
        measure |= {"threads": setup.threads, "latency_s": setup.latency_s}
    bound: dict[str, Any] = {"likelihood_images": setup.likelihood_images} if setup.likelihood_images else {}
    asked = sorted(_on_request(entry) & set(setup.likelihoods))
    if asked:
        _check_likelihoods(entry, built, asked)
        bound["likelihoods"] = asked
    key = keys.cell_key(train_key, None, bound)
    train = Job(cell, key, train_key, samples, setup, families["train"], teacher=teacher)
    draws = tuple(
        Job(
            replace(cell, draw=draw, samples=own),
            keys.cell_key(train_key, config_values(draw), {**measure, "samples": own or samples}),
            train_key,
            own or samples,
            setup,
            families["draw"],
            timed,
            times_likelihood=timed and index == 0,
        )
        for index, (draw, own) in enumerate(zip(wanted.draws, wanted.samples, strict=True))
        if _checked(draw, built, entry)
    )
    return Training(train, draws)


def _teacher(
    entry: registry.Entry, config: Any, wanted: Wanted, setup: Setup, candidates: Sequence[Wanted]
) -> Job | None:
    others = [item for item in candidates if item is not wanted]
    chosen = teacher_of(entry, config, wanted, others)
    return None if chosen is None else _training(replace(chosen, draws=(), samples=()), setup, False, others).job


def _budget(entry: registry.Entry, wanted: Wanted, dataset: Dataset) -> Budget:
    """A model that is fitted in closed form sees the data once, whatever the matrix gives the others."""
    if isinstance(entry.model.build, type) and issubclass(entry.model.build, Fits):
        return Budget(images=len(dataset.train) + (len(dataset.val) if entry.model.build.fits_development else 0))
    return wanted.budget


def check_likelihoods(wanted: Sequence[Wanted], asked: Sequence[str]) -> None:
    """Refuse a likelihood that none of these models has on request.

    Raises:
        UserError: naming it, and those that there are.
    """
    if not asked:
        return
    had = set[str]().union(*(_on_request(registry.load(name)) for name in {item.model for item in wanted}))
    for name in asked:
        if name not in had:
            raise UserError(f"measure.likelihoods: no model here has {name!r} on request{nearest(name, had)}")


def _on_request(entry: registry.Entry) -> set[str]:
    kind = entry.model.build
    return set(kind.likelihoods_on_request) if isinstance(kind, type) and issubclass(kind, HasLikelihood) else set()


def _check_likelihoods(entry: registry.Entry, config: Any, asked: Sequence[str]) -> None:
    kind = entry.model.build
    assert isinstance(kind, type)
    assert issubclass(kind, HasLikelihood)
    for name in asked:
        kind.check_likelihood(config, name)


def _may_have_latent(entry: registry.Entry) -> bool:
    """Unless its class says that it has none; a function that builds it says nothing."""
    kind = entry.model.build
    return not isinstance(kind, type) or issubclass(kind, HasLatent)


def _draws_meanwhile(config: Mapping[str, Any]) -> bool:
    """Whether images are drawn during training."""
    training = config.get("training")
    return isinstance(training, Mapping) and training.get("snapshots", 0) > 0


def _checked(draw: Draw, config: Any, entry: registry.Entry) -> bool:
    """Whether the model can make this draw; found out before anything is trained."""
    kind = entry.model.build
    if isinstance(kind, type) and issubclass(kind, GenerativeModel):
        try:
            kind.check_draw(config, draw)
        except UserError as error:
            raise UserError(f"{entry.name}, draw {draw.label()}: {error}") from None
    return True


def model_source(entry: registry.Entry) -> str:
    """Hash of the model's own code and of the trainer's, with all they import inside `baselines`."""
    roots = ["baselines.trainer"] if entry.module.endswith(".py") else ["baselines.trainer", entry.module]
    packages = ("baselines", entry.module.split(".")[0])
    return keys.source_key(roots, packages, [registry.module_file(entry)])


def what_is_left(trainings: Sequence[Training], records: Mapping[str, Record]) -> Todo:
    """Sort jobs into cached and still to do; a damaged checkpoint that is needed is set aside and noted."""
    todo = Todo()
    to_train, teaching = set[str](), set[str]()
    for training in reversed(trainings):  # those who learn from others come after them
        job = training.job
        needed = job.train_key in teaching or not all(is_done(draw, records) for draw in training.draws)
        done = is_done(job, records)
        there = _has_checkpoint(job, todo) if needed or not done else True
        if not done or not there:
            to_train.add(job.key)
            todo.trained |= {job.key} if there else set()
        if not there and job.teacher is not None:
            teaching.add(job.teacher.train_key)
    for training in trainings:
        draws = [draw for draw in training.draws if not is_done(draw, records)]
        train = training.job.key in to_train
        todo.trainings += [training.job] if train else []
        todo.draws += draws
        todo.cached += [] if train else [training.job]
        todo.cached += [draw for draw in training.draws if draw not in draws]
    return todo


def is_done(job: Job, records: Mapping[str, Record]) -> bool:
    """Whether a record answers this job in full: same key, succeeded, by the metrics as they are now, files whole."""
    record = records.get(job.key)
    return record is not None and _is_current(record, job) and _has_files(record, job)


def lacks_files(job: Job, records: Mapping[str, Record]) -> bool:
    """Whether a record answers this job but for its files, which are not there or not what was written."""
    record = records.get(job.key)
    return record is not None and _is_current(record, job) and not _has_files(record, job)


def _is_current(record: Record, job: Job) -> bool:
    return record.status == "ok" and dict(record.metric_keys) == dict(job.metric_keys)


def _has_files(record: Record, job: Job) -> bool:
    return all(is_whole(job.setup.results, artifact) for artifact in record.artifacts)


def stale_jobs(todo: Todo, records: Mapping[str, Record]) -> set[str]:
    """Keys of the jobs that were done once, by other code, config, data or measuring options than now."""
    wanted = {job.key for job in (*todo.trainings, *todo.draws, *todo.cached)}
    done = [record for record in records.values() if record.status == "ok"]
    left = {record.cell.label() for record in done if record.key not in wanted}
    rescored = {record.key for record in done}
    return {
        job.key
        for job in (*todo.trainings, *todo.draws)
        if (job.key in rescored or job.cell.label() in left) and not lacks_files(job, records)
    }


def _has_checkpoint(job: Job, todo: Todo) -> bool:
    for stem in ("model", "state"):
        try:
            found = checkpoint.load(job.checkpoint_folder, stem)
        except checkpoint.CorruptCheckpointError as error:
            moved = checkpoint.set_aside(job.checkpoint_folder, stem)
            names = ", ".join(str(path) for path in moved)
            todo.notes.append(f"corrupt checkpoint of {job.label}: {error}; moved to {names}; training again")
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
