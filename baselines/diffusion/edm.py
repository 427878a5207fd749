"""Heun's method over the noise levels of Karras et al. 2022 (arXiv:2206.00364), with or without churn; and Euler's.

Their x is x_t / sqrt(abar_t) here and their D the predicted x_0. The start is the chain's x_T ~ N(0, 1) divided by
sqrt(abar), whose variance is 1 + sigma_max^2 where the paper's is sigma_max^2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.grids import (
    LARGEST_LEVEL,
    SMALLEST_LEVEL,
    Option,
    check_plain,
    karras_levels,
    level,
    level_range,
    log_abar_of,
    read_options,
    time_of_level,
)
from baselines.diffusion.process import Process
from baselines.diffusion.samplers import Run, Sampler, count
from baselines.types import Draw

_TINY = 1e-6
OPTIONS = {
    "rho": Option(7.0, 1.0),  # 1: evenly spaced levels
    "sigma_max": Option(LARGEST_LEVEL, _TINY),  # at most the chain's
    "sigma_min": Option(SMALLEST_LEVEL, _TINY),  # at least that of timestep 0
    "s_churn": Option(0.0, 0.0, math.inf),  # 0: deterministic
    "s_noise": Option(1.0, 0.0),
    "s_tmin": Option(0.0, 0.0),
    "s_tmax": Option(math.inf, 0.0, math.inf),
}
_MOST_CHURN = math.sqrt(2) - 1


class Move(NamedTuple):
    """From level `at`, raised to `hat` by noise of deviation `added` (s_noise in it), to level `to`."""

    at: float
    hat: float
    added: float
    to: float


def check(denoiser: Denoiser, draw: Draw) -> None:
    """Levels within the chain; no eta, variance or spacing."""
    check_plain(count(denoiser.process, draw), draw)
    _moves(denoiser.process, draw)


def heun(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """Algorithm 1, and algorithm 2 where options.s_churn is above 0; S steps in 2 S - 1 network calls.

    The levels fall from min(options.sigma_max, the chain's last) to max(options.sigma_min, that of timestep 0), evenly
    in the power 1 / options.rho; the last step is Euler's, into the data. Churn raises no level beyond the chain's
    last. With `clip` each predicted x_0 is clamped to [-1, 1].
    """
    return _run(x, denoiser, draw, noise, second=True)


def euler(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """The same without the second call of each step; S network calls. Without churn it is DDIM with eta = 0."""
    return _run(x, denoiser, draw, noise, second=False)


def _run(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor], second: bool) -> Tensor:
    check(denoiser, draw)
    moves = _moves(denoiser.process, draw)
    x = x * math.exp(-log_abar_of(moves[0].at) / 2)
    for move in moves:
        if move.added > 0:
            x = torch.add(x, next(noise), alpha=move.added)
        x_0 = predicted(x, denoiser, move.hat, draw.clip)
        kept = move.to / move.hat
        after = (x * kept).add_(x_0, alpha=1 - kept)
        if second and move.to > 0:
            half = (move.to - move.hat) / 2
            slope = (x - x_0).mul_(half / move.hat)
            slope.add_(after - predicted(after, denoiser, move.to, draw.clip), alpha=half / move.to)
            after = x + slope
        x = after
    return x


def predicted(x: Tensor, denoiser: Denoiser, at: float, clip: bool) -> Tensor:
    """D of x = x_t / sqrt(abar_t) at a noise level: the predicted x_0, a new tensor, perhaps clamped to [-1, 1]."""
    x_0 = denoiser.x_0(x * math.exp(log_abar_of(at) / 2), time_of_level(denoiser.process, at))
    return x_0.clamp_(-1, 1) if clip else x_0


def _moves(process: Process, draw: Draw) -> list[Move]:
    options = read_options(draw, OPTIONS)
    high, low = level_range(process, options["sigma_max"], options["sigma_min"])
    steps, end = count(process, draw), level(process, process.timesteps - 1)
    levels = [*karras_levels(steps, high, low, options["rho"]), 0.0]
    moves = []
    for at, to in itertools.pairwise(levels):
        churned = options["s_tmin"] <= at <= options["s_tmax"]
        hat = min(at * (1 + min(options["s_churn"] / steps, _MOST_CHURN)), max(end, at)) if churned else at
        moves.append(Move(at, hat, options["s_noise"] * math.sqrt(hat**2 - at**2), to))
    return moves


def _noises(process: Process, draw: Draw) -> int:
    return sum(move.added > 0 for move in _moves(process, draw))


def _twice(process: Process, draw: Draw) -> int:
    return 2 * count(process, draw) - 1


def _sampler(title: str, algorithm: str, run: Run) -> Sampler:
    calls = _twice if run is heun else count
    return Sampler(title, f"Karras et al. 2022, arXiv:2206.00364, {algorithm}", run, check, _noises, calls)


HEUN = _sampler("Heun (EDM)", "algorithms 1 and 2", heun)
EULER = _sampler("Euler (EDM)", "algorithms 1 and 2 without the correction", euler)
