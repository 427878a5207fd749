"""What happens in a cell's process: train or fit, or draw and measure; the result is the cell's record.

Only here is anything trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from baselines import checkpoint, registry, snapshots, trainer
from baselines.config import build_config
from baselines.contract import (
    Distils,
    Fits,
    FitsExPost,
    GenerativeModel,
    HasLatent,
    Noise,
    Pretrained,
    Trains,
)
from baselines.errors import DivergedError, UserError
from baselines.given import Requests
from baselines.noise import derive_seed
from baselines.sharing import ALONE, Team
from baselines.types import Progress
from bench import durable, provenance
from bench.artifacts import is_whole, load_images, save_images, save_json, save_strip
from bench.families import measure_families, open_extractor
from bench.illustrating import illustrate
from bench.job import Job
from bench.measure.clock import Clock, Effort
from bench.measure.counters import parameters
from bench.measure.density import likelihood_speed
from bench.measure.draw import draw_untimed, measure_draw
from bench.measure.memory import keep_freed_memory
from bench.measure.on_gpu import completed, precision
from bench.measure.result import Measured, merge
from bench.measure.training import training_cost
from bench.measure.workload import Workload
from bench.metrics.base import Subject
from bench.metrics.feature_cache import FeatureCache
from bench.metrics.images import of_samples, of_split
from bench.plan import open_dataset
from bench.record import Artifact, Cell, Measurement, Record
from bench.tracking import Follower

Send = Callable[[tuple[str, int, int]], None]

_REAL_SHOWN = 100  # test images kept beside the samples, for the report's grids


def run_job(pair: tuple[Job, Record | None], send: Send) -> Record:
    """Do one job; `previous` is the cell's earlier record, whose timings and samples are kept if still valid.

    Raises:
        DivergedError, UserError and whatever a model raises: the executor makes a failed record of it.
    """
    job, previous = pair
    keep_freed_memory()
    with _threads(1):
        cell = _Cell(job, send)
        return cell.trained() if job.cell.draw is None else cell.drawn(previous)


def why_not_shared(job: Job, team: Team) -> str | None:
    """Why a team cannot train this together; None if it can."""
    cell = _Cell(job, lambda progress: None)
    if not isinstance(cell.model, Trains):
        return None
    try:
        team.check(cell.model, cell.model.training_config.batch_size, job.cell.budget, cell.model.coupled)
    except UserError as error:
        return str(error)
    return None


def train_job(job: Job, send: Send, team: Team) -> None:
    """Train only, as one of a team of processes that all do this; the checkpoint is left for `run_job` to measure.

    Raises:
        DivergedError, UserError and whatever a model raises.
    """
    keep_freed_memory()
    with _threads(1):
        _Cell(job, send, team).train()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch and BLAS use so many threads; small matrices want one, or threads wait longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Cell:
    job: Job
    send: Send
    team: Team = ALONE

    def __post_init__(self) -> None:
        setup, cell = self.job.setup, self.job.cell
        self.began = time.monotonic()
        self.dataset, _ = open_dataset(cell.dataset, setup.data_dir)
        self.model = self._build(cell)
        self.task = registry.load(cell.model).model.task

    def _build(self, cell: Cell) -> GenerativeModel:
        entry = registry.load(cell.model)
        config = build_config(entry.model.config, cell.config, cell.model)
        return trainer.build(entry.model, self.dataset.shape, config, cell.seed, self.dataset.conditions)

    @property
    def progress(self) -> Progress:
        return lambda phase, done, total: self.send((phase, done, total))

    # Training

    def trained(self) -> Record:
        """Train or fit unless the checkpoint is there, then measure what belongs to the training."""
        state = self._load() or self.train()
        self.model.to(self.job.setup.device).eval()
        subject = self._subject(None)
        found = merge([training_cost(self.model, state, self.job), parameters(self.model)])
        measured, skipped = measure_families("train", subject, self.job.setup.metrics)
        curve = {"rows": state["curve"]} if state["curve"] else {}
        contents = {"curve": curve, "likelihood_curves": subject.likelihood_curves, "maps": subject.maps}
        contents |= {"over_training": subject.over_training, "latent_map": subject.latent_map}
        artifacts = [save_json(self.job.setup.results, role, content) for role, content in contents.items() if content]
        self.progress("pictures", 0, 1)
        seed, setup = self.job.cell.seed, self.job.setup
        artifacts += [save_strip(setup.results, strip, self.dataset.shape.levels) for strip in subject.strips]
        strips, refused = illustrate(self.model, self.dataset, self._requests(), seed, setup)
        return self._record(
            (*found.measurements, *measured),
            {**found.skipped, **skipped, **refused},
            (*artifacts, *strips),
            {
                **{name: state[name] for name in ("images", "seconds", "cpu_seconds", "resumed", "best_images")},
                **({} if self.job.teacher is None else {"teacher": self.job.teacher.cell.label()}),
            },
        )

    def _load(self) -> dict[str, Any] | None:
        found = checkpoint.load(self.job.checkpoint_folder, "model")
        if found is None:
            return None
        tensors, meta = found
        self.model.load_state_dict(tensors)
        state: dict[str, Any] = meta["state"]
        return state

    def train(self) -> dict[str, Any]:
        """Train or fit, and keep the checkpoint; gives the training's state."""
        cell, folder, device = self.job.cell, self.job.checkpoint_folder, self.job.setup.device
        if isinstance(self.model, Pretrained):
            state = trainer.TrainState()
        elif isinstance(self.model, Fits):
            state = trainer.fit(self.model, self.dataset, cell.seed)
        else:
            if isinstance(self.model, Distils):
                self.model.learn_from(self._teacher())
            with Follower(self.job, self.progress) as follower:
                where = folder, follower.progress, device
                run = follower.training = trainer.Trainer(
                    self.model, self.dataset, cell.seed, cell.budget, *where, task=self.task, team=self.team
                )
                state = run.run()
            if self.team.rank == 0:
                snapshots.save(folder, run.snapshots.taken)
        plain = dict(state.__dict__)
        if self.team.rank > 0:
            return plain
        about = {"model": cell.model, "dataset": cell.dataset, "seed": cell.seed, "config": dict(cell.config)}
        checkpoint.save(folder, "model", self.model.state_dict(), {"state": plain, **about})
        for place in (folder, folder.parent):
            durable.sync_folder(place)  # before what training would go on from is deleted
        checkpoint.remove(folder, "state")
        return plain

    def _snapshots(self) -> dict[int, Tensor]:
        """Images drawn during training, by training images seen; none where the model keeps none."""
        try:
            return snapshots.load(self.job.checkpoint_folder)
        except checkpoint.CorruptCheckpointError as error:
            raise UserError(f"{error}; delete {self.job.checkpoint_folder} to train again") from error

    def _teacher(self) -> GenerativeModel:
        job = self.job.teacher
        assert job is not None
        found = checkpoint.load(job.checkpoint_folder, "model")
        if found is None:
            raise FileNotFoundError(
                f"no checkpoint of the teacher {job.cell.label()} in {job.checkpoint_folder}; "
                "run the matrix again to train it"
            )
        teacher = self._build(job.cell)
        teacher.load_state_dict(found[0])
        return teacher.eval()

    # Drawing

    def drawn(self, previous: Record | None) -> Record:
        """Draw the samples, timing the sampler while it draws, and score them."""
        draw, setup = self.job.cell.draw, self.job.setup
        assert draw is not None
        if self._load() is None:
            raise FileNotFoundError(f"no checkpoint in {self.job.checkpoint_folder}; run the matrix again to train it")
        self.model.to(setup.device).eval()
        kept = self._kept(previous)
        if kept is not None:
            samples, timed, artifacts = kept
        else:
            with _threads(setup.threads if self.job.timed else 1):
                samples, timed, artifacts = self._sample()
        subject = self._subject(samples)
        measured, skipped = measure_families("draw", subject, self.job.setup.metrics)
        names = [m.metric for m in timed.measurements]
        return self._record(
            (*timed.measurements, *measured),
            {**timed.skipped, **skipped},
            artifacts,
            {"timed": names, "not_timed": dict(timed.skipped)},
        )

    def _sample(self) -> tuple[Tensor, Measured, tuple[Artifact, ...]]:
        setup, draw, dataset = self.job.setup, self.job.cell.draw, self.dataset
        assert draw is not None
        noise = Noise(derive_seed(self.job.cell.seed, "sample"), device=setup.device)
        requests = self._requests()
        workload = Workload(self.model, draw, noise, None if requests is None else requests.given.to(setup.device))
        if self.job.timed:
            effort = Effort(budget_s=setup.latency_s)
            n, batch = self.job.samples, setup.batch
            samples, timed = measure_draw(workload, n, batch, latency_effort=effort, progress=self.progress)
        else:
            samples, timed = draw_untimed(workload, self.job.samples, setup.batch, self.progress)
        if self.job.times_likelihood and workload.refusal is None:
            keyed = Noise(derive_seed(self.job.cell.seed, "likelihood"), device=setup.device)
            clock = Clock(workload.device)
            timed = merge([timed, likelihood_speed(self.model, dataset.test.images, keyed, setup.batch, clock)])
        timed = completed(timed, draw)
        results, levels = setup.results, dataset.shape.levels
        artifacts = [save_images(results, "samples", samples.numpy(), levels)]
        artifacts.append(save_images(results, "real", dataset.test.images[:_REAL_SHOWN].numpy(), levels))
        if timed.raw:
            artifacts.append(save_json(results, "timings", dict(timed.raw)))
        return samples, timed, tuple(artifacts)

    def _requests(self) -> Requests | None:
        """What the model is asked for when it draws, in order; None if it takes noise alone."""
        return None if self.task == "unconditional" else self.dataset.test.requests

    def _kept(self, previous: Record | None) -> tuple[Tensor, Measured, tuple[Artifact, ...]] | None:
        """Samples and timings of an earlier record, if the code that made them is the same now."""
        if previous is None or previous.status != "ok":
            return None
        if previous.metric_keys.get("sampling") != self.job.metric_keys["sampling"]:
            return None
        artifact = next((a for a in previous.artifacts if a.role == "samples"), None)
        images = load_images(self.job.setup.results, artifact) if artifact else None
        if images is None or len(images) != self.job.samples:
            return None
        if not all(is_whole(self.job.setup.results, other) for other in previous.artifacts):
            return None
        timed = set(previous.provenance.get("timed", ()))
        measurements = tuple(m for m in previous.measured if m.metric in timed)
        skipped = dict(previous.provenance.get("not_timed", {}))
        return torch.from_numpy(images), Measured(measurements, skipped), previous.artifacts

    # Both

    def _subject(self, samples: Tensor | None) -> Subject:
        setup = self.job.setup
        drawn = self._snapshots() if samples is None else {}
        looks = samples is not None or drawn or isinstance(self.model, HasLatent)  # large weights take seconds
        extractor, reason = open_extractor(self.dataset, setup) if looks else (None, "")
        return Subject(
            seed=self.job.cell.seed,
            dataset=self.dataset,
            model=self.model,
            draw=self.job.cell.draw,
            generated=None if samples is None else of_samples(samples, self.dataset),
            requests=self._requests(),
            snapshots=drawn,
            reference=of_split(self.dataset),
            train=of_split(self.dataset, "train"),
            disk=FeatureCache(setup.results / "features"),
            keeps_generated=False,
            extractor=extractor,
            extractor_reason=reason,
            device=setup.device,
            likelihood_images=setup.likelihood_images,
            likelihoods=setup.likelihoods,
            progress=self.progress,
            protocol={"subject": _state_of(self.model, self.job)},
        )

    def _record(
        self,
        measured: tuple[Measurement, ...],
        skipped: dict[str, str],
        artifacts: tuple[Artifact, ...],
        about: dict[str, Any],
    ) -> Record:
        job = self.job
        spent = time.monotonic() - self.began
        threads = 1 if job.cell.draw is None or not job.timed else job.setup.threads
        origin = {**provenance.collect(job.setup.device), "threads": threads, "cell_s": round(spent, 2), **about}
        origin |= {"float32 by": precision()} if job.setup.device == "cuda" else {}
        for m in measured:
            if not torch.isfinite(torch.tensor(m.value)):
                raise DivergedError(f"{m.metric} is {m.value}; nothing is made up in its place")
        return Record(
            job.key, job.train_key, "ok", job.cell, measured, skipped, artifacts, origin, dict(job.metric_keys)
        )


def _state_of(model: GenerativeModel, job: Job) -> dict[str, Any]:
    """In which state the model is measured; a property of the row, told with every number."""
    draw = job.cell.draw
    state: dict[str, Any] = {"batch_norm": "eval"}
    if isinstance(model, Trains):
        state["weights"] = "averaged (EMA)" if model.averaged and model.training_config.ema_decay > 0 else "raw"
        state["checkpoint"] = f"best {model.selection} on validation" if model.selection else "last"
    if isinstance(model, FitsExPost):
        state["control"] = model.ex_post
    if draw is not None:
        state["clip"] = draw.clip
    return state
