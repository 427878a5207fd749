"""DPM-Solver++(2M), a multistep solver of second order in the log SNR (Lu et al. 2022, arXiv:2211.01095, alg. 2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.grids import check_plain, falling_times, level, read_options
from baselines.diffusion.process import Process
from baselines.diffusion.samplers import Sampler, count, linear_step
from baselines.types import Draw


def check(denoiser: Denoiser, draw: Draw) -> None:
    """Any spacing of timesteps, or log_snr; no eta, variance or options."""
    read_options(draw, {})
    steps = count(denoiser.process, draw)
    check_plain(steps, draw, spacing=True)
    falling_times(denoiser.process, steps, draw.spacing)


def dpmpp_2m(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """x_s = sigma_s / sigma_t x_t - alpha_s (e^-h - 1) D over S times, one network call each; deterministic.

    D = (1 + 1 / 2r) x_0(x_t) - 1 / 2r x_0(x_before) with r = h_before / h, h the step in half the log SNR. The first
    step and the last one, into the data, take D = x_0(x_t): they are steps of DDIM with eta = 0, as is S = 1; and so is
    the second from pure noise, as the first has then no end in the log SNR. spacing: the timesteps' (uniform, trailing,
    quadratic), or log_snr, S times down to 0 with equal h (`falling_times`). With `clip` each predicted x_0 is clamped
    to [-1, 1].
    """
    check(denoiser, draw)
    process = denoiser.process
    times = falling_times(process, count(process, draw), draw.spacing)
    before: Tensor | None = None
    before_h = math.inf
    for t, s in itertools.pairwise([*times, -1.0]):
        step = linear_step(process.transition(t, s), denoiser.reading(t), 0.0, 0.0)
        x_0 = torch.add(x * step.x0_from_x, denoiser.answer(x, t), alpha=step.x0_from_out)
        if draw.clip:
            x_0.clamp_(-1, 1)
        h = math.log(level(process, t) / level(process, s)) if s >= 0 else math.inf
        ahead = h / before_h / 2 if s >= 0 and before is not None else 0.0
        x = (x * step.keep).add_(x_0, alpha=step.pull * (1 + ahead))
        if before is not None and ahead > 0:
            x.add_(before, alpha=-step.pull * ahead)
        before, before_h = x_0, h
    return x


def _none(process: Process, draw: Draw) -> int:
    return 0


DPMPP_2M = Sampler("DPM-Solver++(2M)", "Lu et al. 2022, arXiv:2211.01095, algorithm 2", dpmpp_2m, check, _none, count)
