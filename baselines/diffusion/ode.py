"""The probability-flow ODE (Song et al. 2021, arXiv:2011.13456, eq. 13) by the Runge-Kutta method of fourth order.

Of x = x_t / sqrt(abar_t) and the log of its noise level the ODE is dx / dlog sigma = x - x_0(x), with no stiff part.
The steps are fixed: an adaptive solver chooses them by all images of a batch, and image i would hang on the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.edm import OPTIONS as EDM_OPTIONS
from baselines.diffusion.edm import predicted
from baselines.diffusion.grids import check_plain, level_range, log_abar_of, log_levels, read_options
from baselines.diffusion.process import Process
from baselines.diffusion.samplers import Sampler, count
from baselines.types import Draw

OPTIONS = {name: EDM_OPTIONS[name] for name in ("sigma_max", "sigma_min")}


def check(denoiser: Denoiser, draw: Draw) -> None:
    """Levels within the chain; no eta, variance or spacing."""
    check_plain(count(denoiser.process, draw), draw)
    _levels(denoiser.process, draw)


def pf_ode(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """S steps of equal size in log sigma, four network calls each, and one call for the predicted x_0 at the end.

    They lead from min(options.sigma_max, the chain's last level) to max(options.sigma_min, that of timestep 0). With
    `clip` each predicted x_0 is clamped to [-1, 1]; the solution is then no longer smooth, nor of fourth order.
    """
    check(denoiser, draw)
    levels = _levels(denoiser.process, draw)
    x = x * math.exp(-log_abar_of(levels[0]) / 2)

    def slope(x: Tensor, at: float) -> Tensor:
        return x - predicted(x, denoiser, at, draw.clip)

    for at, to in itertools.pairwise(levels):
        h, middle = math.log(to / at), math.sqrt(at * to)
        first = slope(x, at)
        second = slope(torch.add(x, first, alpha=h / 2), middle)
        third = slope(torch.add(x, second, alpha=h / 2), middle)
        fourth = slope(torch.add(x, third, alpha=h), to)
        x = x + first.add_(second, alpha=2).add_(third, alpha=2).add_(fourth).mul_(h / 6)
    return predicted(x, denoiser, levels[-1], draw.clip)


def _levels(process: Process, draw: Draw) -> list[float]:
    options = read_options(draw, OPTIONS)
    return log_levels(count(process, draw) + 1, *level_range(process, options["sigma_max"], options["sigma_min"]))


def _none(process: Process, draw: Draw) -> int:
    return 0


def _calls(process: Process, draw: Draw) -> int:
    return 4 * count(process, draw) + 1


PF_ODE = Sampler(
    "Probability-flow ODE, RK4", "Song et al. 2021, arXiv:2011.13456, eq. 13", pf_ode, check, _none, _calls
)
