"""Features of a whole set of images, by one process or several; the numbers are the same up to rounding.

Every part is extracted in the same batches whoever does it, and put where its images stand, so that no image is
counted twice, an uneven last batch changes nothing, and the metrics see what one process would have given them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import PicklingError

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from baselines.errors import UserError
from baselines.types import Progress
from bench.metrics.base import Array, Extractor, Features, Sharing
from bench.metrics.images import ImageSet

BATCH = 500  # images handed to an extractor at a time


def extract_all(extractor: Extractor, images: ImageSet, progress: Progress, pool: Sharing | None = None) -> Features:
    """Features (N, d) and logits (N, K) of N images, BATCH at a time.

    progress is told (phase, images done, N).

    Raises:
        ValueError: if features are NaN or infinite, or not of as many images as there are.
        UserError: if the extractor or the images cannot be handed to another process.
    """
    phase, n = f"features of the {images.what}", len(images)
    progress(phase, 0, n)
    rows = _Rows(n)
    for first, found in _by_one(extractor, images) if pool is None else pool.parts(extractor, images):
        rows.put(first, found)
        progress(phase, rows.done, n)
    features = rows.whole(images.what)
    for array in (features.values, features.logits):
        if array is not None and not np.isfinite(array).all():
            raise ValueError(f"extractor {extractor.name}: {phase} are not finite")
    return features


class Pool:
    """Processes that extract features; they start when they are first needed, and all sets of a run share them."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.started: tuple[Extractor, ProcessPoolExecutor] | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self.started is not None:
            self.started[1].shutdown(cancel_futures=True)

    def parts(self, extractor: Extractor, images: ImageSet) -> Iterator[tuple[int, Features]]:
        """(first, features of BATCH images from there), in whatever order they are done."""
        n = len(images)
        with _told(extractor, images):
            pool = self._of(extractor)
            starts = range(0, n, BATCH)
            waiting = {pool.submit(_part, images.part(s, min(s + BATCH, n))): s for s in starts}
            for future in as_completed(waiting):
                yield waiting[future], future.result()

    def _of(self, extractor: Extractor) -> ProcessPoolExecutor:
        if self.started is None or self.started[0] is not extractor:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            threads = max(1, torch.get_num_threads() // self.processes)
            self.started = extractor, ProcessPoolExecutor(self.processes, context, _begin, (extractor, threads))
        return self.started[1]


@dataclass
class _Rows:
    """Gathers parts into arrays that are made when the first tells their width."""

    n: int
    done: int = 0
    values: Array | None = None
    logits: Array | None = None

    def put(self, first: int, part: Features) -> None:
        if self.values is None:
            self.values = np.empty((self.n, part.values.shape[1]))
            self.logits = None if part.logits is None else np.empty((self.n, part.logits.shape[1]))
        rows = slice(first, first + len(part.values))
        self.values[rows] = part.values
        if self.logits is not None and part.logits is not None:
            self.logits[rows] = part.logits
        self.done += len(part.values)

    def whole(self, what: str) -> Features:
        if self.values is None or self.done != self.n:
            raise ValueError(f"{what}: expected {self.n} images, got {self.done}")
        return Features(self.values, self.logits)


def _by_one(extractor: Extractor, images: ImageSet) -> Iterator[tuple[int, Features]]:
    first = 0
    for batch in images.batches(BATCH):
        yield first, extractor.extract(batch, images.shape.levels)
        first += len(batch)


@contextmanager
def _told(extractor: Extractor, images: ImageSet) -> Iterator[None]:
    try:
        yield
    except (AttributeError, TypeError, PicklingError, BrokenProcessPool) as error:
        raise UserError(
            f"processes: the extractor {extractor.name} or the {images.what} cannot be handed to another process "
            f"({error}); define the extractor in a module that can be imported, or use one process"
        ) from error


_extractor: Extractor | None = None
"""In a helping process: what it was started with."""


def _begin(extractor: Extractor, threads: int) -> None:
    global _extractor
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    _extractor = extractor


def _part(images: ImageSet) -> Features:
    assert _extractor is not None
    [batch] = images.batches(len(images))
    return _extractor.extract(batch, images.shape.levels)
