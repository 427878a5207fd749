"""A clock that waits for the device before each reading, and the rule for how often to read it.

CUDA work is queued: a wall-clock reading without a synchronisation measures the queueing alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.special import bdtr

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """One reading in seconds: wall time, and on a GPU the time between two CUDA events around the call."""

    wall_s: float
    device_s: float | None = None


@dataclass(frozen=True)
class Clock:
    """Times calls whose work may be queued on `device`; `now` reads seconds (a test passes its own)."""

    device: torch.device
    now: Callable[[], float] = time.perf_counter

    def read(self) -> float:
        """Seconds, once the device has finished all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.now()

    def time(self, call: Callable[[], T]) -> tuple[T, Timing]:
        """What the call returns, and how long it took until its last kernel ended."""
        if self.device.type != "cuda":
            before = self.read()
            result = call()
            return result, Timing(self.read() - before)
        with torch.cuda.device(self.device):
            event: Any = torch.cuda.Event  # untyped in some torch versions
            begin, end = event(enable_timing=True), event(enable_timing=True)
            before = self.read()
            begin.record()
            result = call()
            end.record()
            wall_s = self.read() - before
            return result, Timing(wall_s, begin.elapsed_time(end) / 1e3)  # ms to s


@dataclass(frozen=True)
class Effort:
    """How long to repeat: at least the least number of repetitions, then until the time or their number is up."""

    budget_s: float = 1.0
    min_reps: int = 5
    slow_reps: int = 3  # the least number where the first call lasted over slow_s
    slow_s: float = 1.0
    max_reps: int = 200

    def enough(self, walls_s: Sequence[float], spent_s: float) -> bool:
        """Whether to stop after these repetitions, `spent_s` seconds after the first began."""
        least = self.slow_reps if walls_s and walls_s[0] > self.slow_s else self.min_reps
        return len(walls_s) >= least and (spent_s >= self.budget_s or len(walls_s) >= self.max_reps)


def quantile(values: Sequence[float], q: float) -> tuple[float, float | None, float | None]:
    """The empirical q-quantile (linear interpolation) and its distribution-free 95 % interval.

    The interval is between two order statistics (Conover 1999, sec. 3.2): the number of values below the true
    quantile is Binomial(n, q). An end is None where n is too small for one.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    cdf = bdtr(np.arange(n), n, q)  # P(Binomial <= 0 .. n - 1)
    below = int(np.searchsorted(cdf, 0.025, side="right"))  # order statistics that surely lie below
    above = int(np.searchsorted(cdf, 0.975, side="left"))
    low = float(ordered[below - 1]) if below > 0 else None
    high = float(ordered[above]) if above < n else None
    return float(np.quantile(ordered, q)), low, high


def few(n: int, q: float) -> str:
    """A warning where fewer than one of n values is expected beyond the q-quantile; else nothing."""
    needed = math.ceil(round(1 / (1 - q), 6))
    if n >= needed:
        return ""
    return f"n is small: the p{100 * q:g} of {n} repetitions is near their largest; {needed} would be needed"
