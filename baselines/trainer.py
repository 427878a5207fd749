"""The one training loop: phases with their own optimisers, EMA, selection on validation, exact resume.

All randomness is keyed by (seed, step, phase), never by the state of a global generator; so an interrupted run
that goes on from its last checkpoint equals an uninterrupted one bit for bit on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from baselines import checkpoint
from baselines.batches import Batches
from baselines.contract import (
    Batch,
    Context,
    Fits,
    FitsExPost,
    GenerativeModel,
    Model,
    Noise,
    Phase,
    Trains,
)
from baselines.data.dataset import Dataset
from baselines.data.likelihood import bits_per_dim, split_nats, subset
from baselines.errors import DivergedError, UserError
from baselines.noise import derive_seed, seed_dropout
from baselines.optimisers import averaged_module, learning_rate, make_optimiser
from baselines.parameters import others, phase_parameters, without_gradients
from baselines.sharing import ALONE, Team
from baselines.snapshots import Snapshots, in_order
from baselines.types import Budget, Conditions, ImageShape, Progress, Task

_CURVE_POINTS = 100
_CUDA_CHECK_STEPS = 20  # on a GPU the loss is looked at this often, so that it need not synchronise each step


@dataclass
class TrainState:
    """Where training stands, beside the tensors; goes through JSON."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0  # in all, validation and checkpoints included
    cpu_seconds: float = 0.0
    iterating_seconds: float = 0.0  # of that, in iterations
    iterating_cpu_seconds: float = 0.0
    resumed: int = 0
    processes: int = 1  # that trained it together, at most
    best: float | None = None  # validation bits/dim of the selected checkpoint
    best_images: int | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


def build(
    model: Model, shape: ImageShape, config: object, seed: int, conditions: Conditions | None = None
) -> GenerativeModel:
    """Build a model with weights initialised by `seed`, leaving the global generator as it was.

    conditions: the data set's, which a model of any task but unconditional is built from.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "initialisation"))
        if model.task == "unconditional":
            return model.build(shape, config)
        return model.build(shape, config, conditions or Conditions())


def fit(model: GenerativeModel, dataset: Dataset, seed: int) -> TrainState:
    """Fit a model that learns in closed form; it sees the train split, or all real images but the test split."""
    assert isinstance(model, Fits)
    split = dataset.development_split if model.fits_development else dataset.train
    start, cpu = time.perf_counter(), time.process_time()
    model.fit_labelled(split.images, split.labels, Noise(derive_seed(seed, "fit")))
    spent = time.perf_counter() - start, time.process_time() - cpu
    return TrainState(1, len(split), *spent, *spent)


class Trainer:
    """Trains one model on one data set for one budget, resuming from `folder` where it holds a state."""

    def __init__(
        self,
        model: GenerativeModel,
        dataset: Dataset,
        seed: int,
        budget: Budget,
        folder: Path,
        progress: Progress = lambda phase, done, total: None,
        device: str = "cpu",
        checkpoint_every_s: float = 5.0,
        task: Task = "unconditional",
        team: Team = ALONE,
    ) -> None:
        if not isinstance(model, Trains):
            raise UserError(f"{type(model).__name__}: expected a model that is Trains or Fits")
        team.check(model, model.training_config.batch_size, budget, model.coupled)
        self.team = team
        self.model, self.trains, self.dataset = model.to(device), model, dataset
        self.seed, self.budget, self.folder = seed, budget, folder
        self.progress, self.device = progress, torch.device(device)
        self.config = model.training_config
        self.phases = model.phases()
        self.parameters = {phase.name: phase_parameters(model, phase) for phase in self.phases}
        self.others = {name: others(model, mine) for name, mine in self.parameters.items()}
        self.optimisers = {
            phase.name: make_optimiser(phase.optimiser, self.parameters[phase.name], self.device)
            for phase in self.phases
        }
        averaged = {name: model.get_submodule(name) for name in model.averaged if self.config.ema_decay > 0}
        self.averages = {n: averaged_module(m, self.config.ema_decay) for n, m in averaged.items() if [*m.parameters()]}
        self.state = TrainState()
        self.best_weights: dict[str, Tensor] = {}
        validation = dataset.val.images
        self.validation = validation[subset(len(validation), self.config.validation_images)]
        self.batches = Batches(dataset, task, seed, self.device)
        self.snapshots = Snapshots(self.config, seed, None if task == "unconditional" else dataset.val.requests)
        self.checkpoint_every_s = checkpoint_every_s
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def run(self, stop_after: int | None = None) -> TrainState:
        """Train until the budget is spent (or `stop_after` iterations) and put the chosen weights in place.

        Raises:
            DivergedError: naming phase and step, if a loss or a weight is NaN or infinite.
        """
        self._resume()
        self.model.train()
        saved = time.perf_counter()
        began, began_cpu = saved - self.state.seconds, time.process_time() - self.state.cpu_seconds
        while (fraction := self._fraction()) < 1:
            if stop_after is not None and self.state.step >= stop_after:
                self._save_state()
                return self.state
            start, start_cpu = time.perf_counter(), time.process_time()
            self._iterate(fraction)
            end, end_cpu = time.perf_counter(), time.process_time()
            self.state.iterating_seconds += end - start
            self.state.iterating_cpu_seconds += end_cpu - start_cpu
            self.state.seconds, self.state.cpu_seconds = end - began, end_cpu - began_cpu
            self._observe(fraction)
            if time.perf_counter() - saved > self.checkpoint_every_s:
                began_save = time.perf_counter()
                self._save_state()
                saved = time.perf_counter()
                self.checkpoint_every_s = max(self.checkpoint_every_s, 20 * (saved - began_save))
        if self.team.rank == 0:
            self._finish()
        return self.state

    # One iteration

    def _iterate(self, fraction: float) -> None:
        size, step = self.config.batch_size, self.state.step
        due = [phase for phase in self.phases if step % phase.every == 0]
        repeats = max((phase.repeat for phase in due), default=1)
        batches = [self.batches.at(self.state.images + r * size, size) for r in range(repeats)]
        for phase in due:
            for r in range(phase.repeat):
                self._update(phase, batches[r], fraction, r)
        for name, average in self.averages.items():
            average.update_parameters(self.model.get_submodule(name))
        self.state.step += 1
        self.state.images += repeats * size

    def _update(self, phase: Phase, batch: Batch, fraction: float, repeat: int) -> None:
        seed = derive_seed(self.seed, self.state.step, phase.name, repeat)
        seed_dropout(seed, self.device)
        generator = torch.Generator().manual_seed(seed)
        optimiser, parameters = self.optimisers[phase.name], self.parameters[phase.name]
        share = self.team.share(self.config.batch_size, self.state.step)
        with without_gradients(self.others[phase.name]), share.dropping():
            context = Context(self.state.step, fraction, generator, self.device, share)
            losses = phase.loss(batch.part(share), context)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call]
        values = {name: v.detach().clone() for name, v in {"loss": losses.total, **losses.parts}.items()}
        self.team.average([*values.values(), *(p.grad for p in parameters if p.grad is not None)])
        self._note(phase, values)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(phase.optimiser, fraction)
        optimiser.step()

    def _note(self, phase: Phase, values: dict[str, Tensor]) -> None:
        for part, value in values.items():
            name = f"{phase.name}/{part}"
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        every = 1 if self.device.type == "cpu" else _CUDA_CHECK_STEPS
        if self.state.step % every == 0 and not math.isfinite(float(self.sums[f"{phase.name}/loss"])):
            raise DivergedError(f"training: phase {phase.name!r}, step {self.state.step}: the loss is NaN or infinite")

    # Between iterations

    def _fraction(self) -> float:
        if self.budget.images is not None:
            return self.state.images / self.budget.images
        assert self.budget.seconds is not None
        return self.state.seconds / self.budget.seconds

    def _observe(self, before: float) -> None:
        """Tell progress, and at fixed fractions of the budget note the curve and score the validation split."""
        after = min(self._fraction(), 1.0)
        total = self.budget.images or round(self.state.images / max(after, 1e-9))
        self.progress("training", min(self.state.images, total), total)
        if _crossed(before, after, self.config.snapshots) and self.team.rank == 0:
            with self._evaluated():
                self.snapshots.take(self.model, self.state.images, self.device)
        crossed = _crossed(before, after, _CURVE_POINTS)
        validate = self.trains.selection is not None and _crossed(before, after, self.config.validations)
        validate = validate and self.team.rank == 0
        if not (crossed or validate):
            return
        row = {"images": float(self.state.images), "seconds": self.state.seconds}
        row |= {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        if validate:
            row["val_bits_per_dim"] = value = self._validate()
            if self.state.best is None or value < self.state.best:
                self.state.best, self.state.best_images = value, self.state.images
                with self._averaged():
                    self.best_weights = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        self.state.curve.append(row)

    def _validate(self) -> float:
        assert self.trains.selection is not None
        noise = Noise(derive_seed(self.seed, "validation"), device=self.device)
        try:
            with self._evaluated():
                nats = split_nats(self.model, self.validation, self.trains.selection, noise)
        except DivergedError as error:
            raise DivergedError(f"training: {self._where()}, on the validation split: {error}") from error
        return float(bits_per_dim(nats.total.double().mean(), self.model.shape))

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        """As the model is measured: averaged weights, evaluation mode."""
        self.model.eval()
        with self._averaged():
            yield
        self.model.train()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Swap the averaged weights in, and out again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, average in self.averages.items():
            if int(average.n_averaged) > 0:
                for ours, mean in zip(
                    self.model.get_submodule(name).parameters(), average.module.parameters(), strict=True
                ):
                    ours.data, mean.data = mean.data, ours.data

    def _finish(self) -> None:
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
        else:
            self._swap()
        self.model.eval()
        noise = Noise(derive_seed(self.seed, "finish"), device=self.device)
        if isinstance(self.trains, FitsExPost):
            self.trains.fit_ex_post(self.batches.every_image(), noise)
        self.trains.finish(self.validation.to(self.device), noise)
        for name, tensor in self.model.state_dict().items():
            if not bool(torch.isfinite(tensor).all()):
                raise DivergedError(f"training: {self._where(name)}: {name} is NaN or infinite")

    def _where(self, weights: str = "") -> str:
        """The phases that have trained (these weights), and the step."""
        names = [
            repr(phase.name)
            for phase in self.phases
            if not weights or any(weights.startswith(f"{module}.") for module in phase.modules)
        ]
        return f"after phase {', '.join(names or ['?'])}, step {self.state.step}"

    # The state on disk

    def _save_state(self) -> None:
        if self.team.rank > 0:
            return
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_weights.items()}
        tensors |= {f"sum/{name}": tensor for name, tensor in self.sums.items()}
        tensors |= {f"snapshot/{images}": tensor for images, tensor in self.snapshots.taken.items()}
        for name, average in self.averages.items():
            tensors |= {f"average/{name}/{key}": tensor for key, tensor in average.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, values in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser/{name}/{index}/{key}": value for key, value in values.items()}
        checkpoint.save(self.folder, "state", tensors, {"state": self.state.__dict__, "counts": self.counts})

    def _resume(self) -> None:
        found = self.team.told(checkpoint.load(self.folder, "state") if self.team.rank == 0 else None)
        self.state.processes = self.team.size
        if found is None:
            return
        tensors, meta = found
        self.model.load_state_dict(_under(tensors, "model/"))
        self.best_weights = _under(tensors, "best/")
        self.sums, self.counts = _under(tensors, "sum/"), meta["counts"]
        self.snapshots.taken = in_order(_under(tensors, "snapshot/"))
        for name, average in self.averages.items():
            average.load_state_dict(_under(tensors, f"average/{name}/"))
        for name, optimiser in self.optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _under(tensors, f"optimiser/{name}/").items():
                index, _, what = key.partition("/")
                state.setdefault(int(index), {})[what] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        self.state = TrainState(**meta["state"])
        self.state.resumed += 1
        self.state.processes = max(self.state.processes, self.team.size)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _crossed(before: float, after: float, parts: int) -> bool:
    """Whether the budget's fraction passed a multiple of 1 / parts."""
    return math.floor(after * parts) > math.floor(before * parts)
