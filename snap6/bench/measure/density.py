"""How fast a model evaluates likelihoods: the other direction of a flow, where it may differ over a hundredfold."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.contract import GenerativeModel
from baselines.data.likelihood import image_nats, kinds
from baselines.noise import Noise
from bench.measure.clock import Clock, Effort
from bench.measure.result import Measured, merge
from bench.measure.throughput import rate
from bench.measure.workload import speed_protocol

EFFORT = Effort(budget_s=0.3, min_reps=3, slow_reps=1, slow_s=0.3)
_GROWTH = 4  # of the batch, while even a call that takes as much longer is no longer than _LONGEST_S
_LONGEST_S = 5.0


def likelihood_speed(
    model: GenerativeModel, images: Tensor, noise: Noise, batch: int, clock: Clock, effort: Effort = EFFORT
) -> Measured:
    """`likelihood_images_per_s[name]` of each likelihood the model has, with scope train (no draw is involved).

    Args:
        model: in evaluation mode, on `noise.device`.
        images: uint8 (N, C, H, W), N >= 1, real images of the test split.
        noise: for dequantisation and stochastic bounds.
        batch: the large batch. Where it does not fit the time, the largest that does is used, and said.
        clock: of the model's device.
        effort: time per likelihood.
    """
    if not kinds(model):
        return Measured(skipped={"likelihood_images_per_s": "the model has no likelihood"})
    x = images[: min(batch, len(images))].to(noise.device)
    return merge(_speed(model, x, name, noise, clock, effort) for name in kinds(model))


@torch.no_grad()
def _speed(model: GenerativeModel, x: Tensor, name: str, noise: Noise, clock: Clock, effort: Effort) -> Measured:
    def seconds(size: int) -> float:
        return clock.time(lambda: image_nats(model, x[:size], name, noise))[1].wall_s

    size, wall_s = 1, seconds(1)
    while size < len(x) and _GROWTH * wall_s <= _LONGEST_S:
        size = min(size * _GROWTH, len(x))
        wall_s = seconds(size)
    walls_s = [wall_s] if wall_s > effort.slow_s else []  # a slow call was its own measurement
    begin = clock.read()
    while not walls_s or (wall_s <= effort.slow_s and not effort.enough(walls_s, clock.read() - begin)):
        walls_s.append(seconds(size))
    note = f"batch / median of {len(walls_s)} timed batches"
    if size < len(x):
        note += f"; the largest batch of {len(x)} or fewer that the time allowed"
    protocol = speed_protocol(model, torch.device(noise.device), size)
    return rate(f"likelihood_images_per_s[{name}]", walls_s, size, note, protocol, scope="train")
