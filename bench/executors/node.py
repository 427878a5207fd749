"""What happens on a node of a cluster: one cell in a process of its own, in a folder of its own, and the way home.

The node shares no disk with the run. It is handed the files that the cell reads, and hands back checkpoints as they
are saved, then artifacts and the outcome; if it is lost, the run has all but the last seconds of a training.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from baselines.errors import UserError
from bench import keys, provenance
from bench.executors.freight import Piece, Unpacker, Watched, artifacts, pieces
from bench.executors.local import Outcome, Send, run_jobs
from bench.job import Job
from bench.record import Record

Pair = tuple[Job, Record | None]
Message = tuple[str, Any]
"""("progress", (phase, done, total)) | ("piece", Piece) | ("outcome", Outcome of this node's pair)."""

_GPUS = "CUDA_VISIBLE_DEVICES"
_LOOK_S = 0.5  # how often a training's folder is looked at


@dataclass(frozen=True)
class Order:
    """One cell to do, with what it needs beside its files."""

    pair: Pair
    time_limit_s: float
    folder: str  # the run's working directory, to be used where there is one of this name
    path: tuple[str, ...]  # folders to import a user's own models from
    data_dir: str | None  # the run's TRILEMMA_DATA, for nodes without one
    data: str  # fingerprint of the run's data
    code: str  # of the run's sources
    gpus: str | None = None  # those that the task was given, as CUDA_VISIBLE_DEVICES names them; set on the node


@cache
def code() -> str:
    """A hash of the sources of `bench` and `baselines` that run here."""
    sources = provenance.sources(Path(__file__).parents[2])
    return keys.digest(sorted((name, keys.digest(text.decode())) for name, text in sources.items()))


def about() -> dict[str, Any]:
    """What the run has to know of this node before it gives it work."""
    return {"code": code(), "cpu": provenance.cpu_model()}


def cell(order: Order, files: Sequence[Any]) -> Iterator[Message]:
    """The body of a cluster's task; `files` are the references to the pieces of what the cell reads."""
    import ray

    yield from carry_out(order, (ray.get(file) for file in files))


def carry_out(order: Order, files: Iterable[Piece]) -> Iterator[Message]:
    """Do one cell and tell what comes of it, the outcome last.

    Raises:
        UserError: if other code runs here than on the machine that gave the order.
    """
    if order.code != code():
        raise UserError("this node runs other code of trilemma than the run; install the same version on all nodes")
    with _own_folder() as folder:
        unpacker = Unpacker(folder)
        for piece in files:
            unpacker.take(piece)
        # the server that cells are forked from may be older than this task, and know another task's GPUs
        order = replace(order, pair=_moved(order.pair, folder), gpus=os.environ.get(_GPUS))
        yield from _watched(order, folder)


def _watched(order: Order, folder: Path) -> Iterator[Message]:
    job = order.pair[0]
    watched = Watched(job)
    told: queue.SimpleQueue[tuple[str, int, int] | Outcome[Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            limits = order.time_limit_s, lambda _, progress: told.put(progress), job.setup.memory_limit_mb
            for outcome in run_jobs([order], _in_the_cells_process, 1, *limits):
                told.put(outcome)
        except Exception as error:  # no process could be started: an outcome as well, or the task would wait for ever
            told.put(Outcome(order, "failed", error=f"{type(error).__name__}: {error}"))

    threading.Thread(target=work, daemon=True).start()
    while True:
        news = _latest(told)
        if isinstance(news, Outcome):
            break
        if news is not None:
            yield "progress", news
        if job.cell.draw is None:
            yield from (("piece", piece) for piece in watched.news())
    if job.cell.draw is None:
        yield from (("piece", piece) for piece in watched.news())
    if news.status == "ok":
        yield from (("piece", piece) for piece in pieces(folder, artifacts(news.result)))
    yield "outcome", (news.status, news.result, news.error, news.seconds)


def _latest(told: queue.SimpleQueue[Any]) -> Any:
    """The newest progress, or the outcome if there is one; None if nothing came for a while."""
    found = None
    with contextlib.suppress(queue.Empty):
        found = told.get(timeout=_LOOK_S)
        while not isinstance(found, Outcome):
            found = told.get_nowait()
    return found


def see_gpus(order: Order) -> None:
    """Before anything asks CUDA: use the GPUs of this task, whatever the process was told before."""
    if order.gpus is not None:
        os.environ[_GPUS] = order.gpus


def _in_the_cells_process(order: Order, send: Send) -> Record:
    from baselines.data.catalogue import DATA_DIR_VARIABLE  # these import torch, which the node's own process needs not
    from bench.metrics.feature_cache import default_folder
    from bench.plan import open_dataset
    from bench.worker import run_job

    see_gpus(order)
    job = order.pair[0]
    features = default_folder()  # of the same images these are the same for every cell
    features.mkdir(parents=True, exist_ok=True)
    (job.setup.results / "features").symlink_to(features.absolute(), target_is_directory=True)
    if Path(order.folder).is_dir():
        os.chdir(order.folder)
    sys.path[:0] = [path for path in order.path if path not in sys.path]
    if order.data_dir is not None:
        os.environ.setdefault(DATA_DIR_VARIABLE, order.data_dir)
    _, fingerprint = open_dataset(job.cell.dataset, job.setup.data_dir)
    if fingerprint != order.data:
        raise UserError(
            f"{job.cell.dataset}: expected the data of the machine that started the run, got other data on this node; "
            "put the same files on all nodes"
        )
    return run_job(order.pair, send)


def _moved(pair: Pair, folder: Path) -> Pair:
    """The same work in another results folder."""
    job, previous = pair
    return _with_results(job, folder), previous


def _with_results(job: Job, folder: Path) -> Job:
    teacher = None if job.teacher is None else _with_results(job.teacher, folder)
    return replace(job, setup=replace(job.setup, results=folder), teacher=teacher)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """An empty folder of this node's, gone afterwards; what killed predecessors left behind goes too."""
    above = Path(tempfile.gettempdir()) / f"trilemma-cells-{os.getuid()}"
    above.mkdir(mode=0o700, exist_ok=True)
    if above.is_symlink() or above.stat().st_uid != os.getuid():  # anyone may make a folder in /tmp
        raise UserError(f"{above}: expected a folder of this user's own, got another's; remove it, or set TMPDIR")
    with _held(above / "lock", fcntl.LOCK_EX):
        for left in above.iterdir():
            with contextlib.suppress(OSError), _held(left / ".lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=above))
        holding = contextlib.ExitStack()
        holding.enter_context(_held(folder / ".lock", fcntl.LOCK_EX))
    with holding:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(file: Path, how: int) -> Iterator[None]:
    lock = os.open(file, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)
