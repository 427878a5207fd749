"""All that is measured of one draw, in the order that keeps each number honest."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.types import Progress
from bench.measure.clock import Clock, Effort
from bench.measure.counters import work
from bench.measure.latency import cold_call, latency
from bench.measure.result import Measured, merge
from bench.measure.throughput import EFFORT, draw_samples
from bench.measure.workload import Workload, observe

UNTIMED = "the matrix times its first seeds alone: speed does not depend on the weights"


def measure_draw(
    workload: Workload,
    n: int,
    batch: int,
    clock: Clock | None = None,
    latency_effort: Effort | None = None,
    throughput_effort: Effort = EFFORT,
    progress: Progress = lambda phase, done, total: None,
) -> tuple[Tensor, Measured]:
    """Draw images 0 .. n - 1 and measure it; nothing else may run on the machine, nor have used the model before.

    The cold call comes first, before anything else can warm the model; the second call is the full-length warm-up
    and shows the network calls; then the samples are drawn in large batches, one of them watched for memory alone.

    Args:
        workload: model and draw.
        n: images for the quality metrics.
        batch: the large batch of memory and throughput; a third of n or less for slow samplers.
        clock: real time on the workload's device by default.
        latency_effort: see `latency`.
        throughput_effort: see `draw_samples`.
        progress: told (phase, done, total).

    Returns:
        Uint8 (n, C, H, W) on the CPU, and the measurements.
    """
    clock = clock or Clock(workload.device)
    progress("cold call", 0, 1)
    cold = cold_call(workload, clock)
    image, calls = observe(workload, 1)
    workload.checked(image, 1)
    counted = work(workload.draw, calls)
    single = latency(workload, calls, clock, latency_effort, progress)
    samples, large = draw_samples(workload, n, batch, clock, throughput_effort, progress)
    return samples, merge((cold, single, counted, large))


def draw_untimed(workload: Workload, n: int, batch: int, progress: Progress) -> tuple[Tensor, Measured]:
    """The same images where the matrix times other seeds alone: work is counted, and every speed is skipped."""
    _, calls = observe(workload, 1)
    drawn = []
    for first in range(0, n, batch):
        size = min(batch, n - first)
        drawn.append(workload.checked(workload.images(size, first), size).cpu())
        progress("sampling", min(first + batch, n), n)
    counted = work(workload.draw, calls)
    untimed = ("latency_s", "images_per_s", "limit_ratio", "host_peak_bytes")
    return torch.cat(drawn), merge((counted, Measured(skipped=dict.fromkeys(untimed, UNTIMED))))
