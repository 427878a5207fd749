"""Images to latents and back by deterministic DDIM (Song et al. 2020, arXiv:2010.02502, sec. 4.3 and 5.4)."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.process import Spacing, subsequence
from baselines.diffusion.samplers import ddim
from baselines.types import Draw


def ddim_encode(x_0: Tensor, denoiser: Denoiser, steps: int | None = None, spacing: Spacing = "uniform") -> Tensor:
    """x at the last of S timesteps, which `ddim_decode` leads back to x_0 with an error that falls with S.

    Euler's method for eq. 14 run upwards: x_t = sqrt(abar_t) x_0(x_s) + sqrt(1 - abar_t) eps(x_s) for s < t. The step
    out of the data asks the network at the first timestep, since it knows none before. S network calls; not clamped.

    Args:
        x_0: (B, C, H, W), pixels in [-1, 1].
        denoiser: the network and its process.
        steps: S; None: all T.
        spacing: which S of the timesteps.

    Returns:
        A new tensor of x_0's shape, about N(0, 1).

    Raises:
        UserError: for steps or a spacing that there are not.
    """
    process = denoiser.process
    times = subsequence(process.timesteps if steps is None else steps, process.timesteps, spacing)
    x = x_0
    for s, t in itertools.pairwise([-1, *times]):
        asked = max(s, times[0])
        eps = denoiser.eps(x, asked)
        # x_0 by eps and x_s's own level, which in the first step is 0
        signal = process.signal(t) / process.signal(s)
        noise = process.sigma(t) - signal * math.sqrt(-math.expm1(process.log_abar(s)))
        x = torch.add(x * signal, eps, alpha=noise)
    return x


def ddim_decode(x_T: Tensor, denoiser: Denoiser, steps: int | None = None, spacing: Spacing = "uniform") -> Tensor:
    """x_0 of x_T by DDIM with eta = 0 over the same timesteps, not clamped; arguments as in `ddim_encode`."""
    return ddim(x_T, denoiser, Draw("ddim", steps, spacing=spacing, clip=False), iter(()))
