"""Training curves told to TensorBoard or MLflow while they are made; both are extras, imported only when asked for.

They show what the record's curve holds, over training images: about a hundred rows a training, each when it is made.
They are a view: a tracker that fails is told on stderr and left alone, and the training goes on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from baselines.errors import UserError
from baselines.types import Progress
from bench.job import Job, Setup

EXPERIMENT = "trilemma"
"""MLflow's experiment, in which each training is a run, found again by its tag `train_key`."""

Row = Mapping[str, float]


class Tracker(Protocol):
    """Somewhere that curves are told to."""

    began_before: bool
    """Whether an earlier part of this training was told here, by a run that was interrupted."""

    def tell(self, rows: Sequence[Row]) -> None:
        """Rows with `images` and further numbers by name."""

    def close(self, finished: bool) -> None:
        """Nothing more comes; finished: whether the training reached its end."""


def check(setup: Setup) -> None:
    """Find out before anything is trained whether what is asked for is there.

    Raises:
        UserError: if an extra is not installed, the folder cannot be made, or MLflow's store does not answer.
    """
    if setup.tensorboard is not None:
        _need("tensorboard")
        try:
            setup.tensorboard.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--tensorboard {setup.tensorboard}: cannot be made ({error.strerror or error})") from None
    if setup.mlflow is not None:
        _need("mlflow")
        try:
            _experiment(_client(setup.mlflow))
        except Exception as error:  # MLflow's own, and those of whatever store the address names
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"--mlflow {setup.mlflow}: expected a tracking store that answers, got: {reason}") from None


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"--{package}: it is not installed: python -m pip install 'trilemma-bench[{package}]' -c constraints.txt"
        )


class _Training(Protocol):
    @property
    def state(self) -> Any:
        """With the curve, a list of rows."""


class Follower:
    """Passes on what is new of a training's curve, whenever the training reports its progress."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.trackers: list[Tracker] = []
        self.training: _Training | None = None
        self._progress = progress
        self._told: int | None = None
        setup = job.setup
        if (folder := setup.tensorboard) is not None:
            self._try(lambda: self.trackers.append(TensorBoard(folder, job)))
        if (address := setup.mlflow) is not None:
            self._try(lambda: self.trackers.append(Mlflow(address, job)))

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._see()
        for tracker in self.trackers:
            self._try(partial(tracker.close, finished=kind is None))

    def progress(self, phase: str, done: int, total: int) -> None:
        """Called after every iteration."""
        self._progress(phase, done, total)
        self._see()

    def _see(self) -> None:
        if self.training is None or not self.trackers:
            return
        curve = self.training.state.curve
        if self._told is None:  # what there is before the first row of this run, an interrupted one had come to
            self._told = len(curve)
            for tracker in [tracker for tracker in self.trackers if not tracker.began_before]:
                self._tell(tracker, curve)
        if len(curve) > self._told:
            for tracker in list(self.trackers):
                self._tell(tracker, curve[self._told :])
            self._told = len(curve)

    def _tell(self, tracker: Tracker, rows: Sequence[Row]) -> None:
        if rows and not self._try(lambda: tracker.tell(rows)):
            self.trackers.remove(tracker)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # a view must not end a training
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"note: tracking stopped, the training goes on: {reason}", file=sys.stderr)
            return False
        return True


class TensorBoard:
    """Event files, a folder a training."""

    def __init__(self, folder: Path, job: Job) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / name_of(job)
        self.began_before = place.is_dir() and any(place.iterdir())
        self.writer: Any = SummaryWriter(str(place))
        if not self.began_before:
            about = {"cell": job.label, "train_key": job.train_key, "config": dict(job.cell.config)}
            self.writer.add_text("training", f"```\n{json.dumps(about, indent=1, default=str)}\n```")

    def tell(self, rows: Sequence[Row]) -> None:
        """One scalar a name, over training images."""
        for row in rows:
            for name, value in row.items():
                if name != "images":
                    self.writer.add_scalar(name, value, int(row["images"]))
        self.writer.flush()

    def close(self, finished: bool) -> None:
        """Write out what is left."""
        self.writer.close()


class Mlflow:
    """A run of the experiment `trilemma`; an interrupted training goes on in the same one."""

    def __init__(self, address: str, job: Job) -> None:
        self.client = _client(address)
        experiment = _experiment(self.client)
        found = self.client.search_runs([experiment], f"tags.train_key = '{job.train_key}'", max_results=1)
        self.began_before = bool(found)
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        cell = job.cell
        tags = {"train_key": job.train_key, "model": cell.model, "dataset": cell.dataset, "seed": str(cell.seed)}
        self.run = self.client.create_run(experiment, tags=tags, run_name=job.label).info.run_id
        for name, value in {"budget": cell.budget.label(), **_flat(cell.config)}.items():
            self.client.log_param(self.run, _allowed(name), str(value)[:500])

    def tell(self, rows: Sequence[Row]) -> None:
        """One metric a name, over training images."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_allowed(name), value, now, int(row["images"]))
            for row in rows
            for name, value in row.items()
            if name != "images"
        ]
        for first in range(0, len(metrics), 500):  # a request takes a thousand at most
            self.client.log_batch(self.run, metrics=metrics[first : first + 500])

    def close(self, finished: bool) -> None:
        """Say how it ended."""
        self.client.set_terminated(self.run, "FINISHED" if finished else "FAILED")


def name_of(job: Job) -> str:
    """A training's folder: its cell and the start of its key, with nothing in it that leads elsewhere."""
    cell = job.cell
    plain = re.sub(r"[^\w-]+", "_", f"{Path(cell.model).stem}-{cell.dataset}-seed{cell.seed}")
    return f"{plain}-{job.train_key[:8]}"


def _client(address: str) -> Any:
    if address.startswith("file:"):  # who names a folder wants one, though MLflow would rather have a database
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address)


def _experiment(client: Any) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(client.create_experiment(EXPERIMENT) if found is None else found.experiment_id)


def _allowed(name: str) -> str:
    """As MLflow takes names."""
    return re.sub(r"[^\w./ -]", "_", name)


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
        found |= inner
    return found
