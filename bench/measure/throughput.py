"""Images per second at a large batch: the run that draws the samples for the quality metrics is the timed one.

The first full batch warms up and shows the network calls, the second is watched for memory; the others are timed,
each followed by a block of bare forwards on the inputs seen, for the sampler's own limit at this batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from baselines.types import Progress
from bench.measure.clock import Clock, Effort, Timing, quantile
from bench.measure.latency import Limit
from bench.measure.memory import sample_memory
from bench.measure.result import Measured, merge
from bench.measure.workload import Calls, Workload, capture_calls
from bench.record import Measurement, Scope

EFFORT = Effort(budget_s=0.5, min_reps=3)
"""A run that is timed for less than this repeats its batch until the time is reached."""


def draw_samples(
    workload: Workload,
    n: int,
    batch: int,
    clock: Clock,
    effort: Effort = EFFORT,
    progress: Progress = lambda phase, done, total: None,
) -> tuple[Tensor, Measured]:
    """Draw images 0 .. n - 1 in batches: `images_per_s`, `limit_s[large]`, `limit_ratio[large]`, and `sample_memory`.

    Args:
        workload: model and draw.
        n: how many images.
        batch: the large batch. A slow sampler wants three batches or more, or one is drawn more than once.
        clock: of the workload's device.
        effort: how long to repeat a batch where the run itself is short.
        progress: told (phase, images done, n).

    Returns:
        Uint8 (n, C, H, W) on the CPU, the same whatever the batch; and the measurements.

    Raises:
        ValueError: if n or batch is not positive.
    """
    if n < 1 or batch < 1:
        raise ValueError(f"expected at least one image and a batch of one, got n={n}, batch={batch}")
    batch = min(batch, n)
    run, memory, kept = _Run(workload, clock, batch), None, []
    for first in range(0, n, batch):
        size = min(batch, n - first)
        if first == batch == size:
            images, memory = sample_memory(workload, batch, first)
        else:
            images = run.step(size, first)
        kept.append(workload.checked(images, size).cpu())
        progress("sampling", first + size, n)
    if memory is None:
        _, memory = sample_memory(workload, batch)
    run.repeat(effort, progress)
    return torch.cat(kept), merge((memory, run.measured()))


def throughput(
    workload: Workload,
    batch: int,
    clock: Clock,
    effort: Effort = EFFORT,
    progress: Progress = lambda phase, done, total: None,
) -> Measured:
    """The same measurements for their own sake: one batch of warm-up, then repeated draws of it."""
    run = _Run(workload, clock, batch)
    run.repeat(effort, progress)
    return run.measured()


@dataclass
class _Run:
    workload: Workload
    clock: Clock
    batch: int
    clean: list[Timing] = field(default_factory=list)  # full batches, warm, with no hook on the network
    first: Timing | None = None  # the batch whose network calls were looked at; it also warms up
    limit: Limit = field(init=False)

    def __post_init__(self) -> None:
        self.limit = Limit(Calls(None, None), self.clock)

    def step(self, size: int, first: int) -> Tensor:
        """Draw a batch; time it where it is a full one."""
        if self.workload.refusal or size < self.batch:
            return self.workload.images(size, first)
        if self.first is None:
            with capture_calls(self.workload.model, self.workload.device) as calls:
                images, self.first = self.clock.time(lambda: self.workload.images(size, first))
            self.limit.calls = calls
            return images
        images, timing = self.clock.time(lambda: self.workload.images(size, first))
        self.clean.append(timing)
        self.limit.after(timing)
        return images

    def repeat(self, effort: Effort, progress: Progress) -> None:
        """Draw the first batch again and again where too little was timed, unless one batch alone is slow."""
        if self.workload.refusal:
            return
        if self.first is None and not self.clean:
            self.step(self.batch, 0)
        slow = self.first is not None and self.first.wall_s > effort.slow_s and not self.workload.builds
        if not self.clean and self.first is not None and slow:
            self.limit.after(self.first)
            return
        timed_s = sum(t.wall_s for t in self.clean)
        if timed_s >= effort.budget_s:
            return
        begin = self.clock.read()
        while not effort.enough([t.wall_s for t in self.clean], timed_s + self.clock.read() - begin):
            self.step(self.batch, 0)
            progress("throughput", len(self.clean), effort.max_reps)

    def measured(self) -> Measured:
        """The rate of the median batch, and how far it is from the network's own."""
        if self.workload.refusal:
            metrics = "images_per_s", "limit_s[large]", "limit_ratio[large]"
            return Measured(skipped=dict.fromkeys(metrics, self.workload.refusal))
        timings = self.clean or [timing for timing in (self.first,) if timing is not None]
        walls_s = [t.wall_s for t in timings]
        note = f"batch / median of {len(walls_s)} timed batches"
        if not self.clean:
            note = "one batch only, with no warm-up at this batch"
        protocol = self.workload.protocol(self.batch)
        speed = rate("images_per_s", walls_s, self.batch, note, protocol)
        beside = self.limit.measured("large", protocol)
        raw = {"batch_s": walls_s}
        device_s = [t.device_s for t in timings if t.device_s is not None]
        if device_s:
            raw["batch_device_s"] = device_s
        return Measured(
            (*speed.measurements, *beside.measurements),
            {**speed.skipped, **beside.skipped},
            {**raw, **beside.raw},
        )


def rate(
    metric: str,
    walls_s: list[float],
    batch: int,
    note: str,
    protocol: Mapping[str, Any],
    scope: Scope = "draw",
) -> Measured:
    """Images per second of the median batch, with the distribution-free interval of that median."""
    median_s, low_s, high_s = quantile(walls_s, 0.5)
    if median_s <= 0:
        return Measured(skipped={metric: "a batch is below the clock's resolution"})
    low = batch / high_s if high_s else None
    high = batch / low_s if low_s else None
    n = batch * len(walls_s)
    return Measured(
        (
            Measurement(
                metric,
                batch / median_s,
                "images/s",
                "higher",
                n,
                scope,
                low,
                high,
                protocol=protocol,
                note=note,
            ),
        )
    )
