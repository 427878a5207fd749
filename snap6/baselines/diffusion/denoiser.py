"""What a sampler is shown of a model: its network, and how to read the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.diffusion.prediction import Prediction, Reading, reading
from baselines.diffusion.process import Process

Network = Callable[[Tensor, float], Tensor]
"""network(x_t, t): its answer of x_t's shape, all images at one time t in 0 .. T - 1; never written to."""


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A network that answers in eps, x_0, v or the posterior mean.

    learned_variance: the answer has twice x_t's channels; the second half is v of Nichol and Dhariwal 2021, eq. 15,
    before it is mapped from [-1, 1] to [0, 1]. x0_variance: the mean over pixels of Var[x_0 | x_t] at each timestep,
    (T,), for the analytic reverse variance of Bao et al. 2022 (arXiv:2201.06503).
    """

    network: Network
    process: Process
    prediction: Prediction = "eps"
    learned_variance: bool = False
    x0_variance: tuple[float, ...] | None = None

    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The network's answer, of x_t's shape."""
        out = self.network(x_t, t)
        return out[:, : x_t.shape[1]] if self.learned_variance else out

    def reading(self, t: float) -> Reading:
        """How the answer at this time is read."""
        return reading(self.prediction, self.process, t)

    def x_0(self, x_t: Tensor, t: float) -> Tensor:
        """E[x_0 | x_t] as predicted, a new tensor of x_t's shape; not clamped."""
        read = self.reading(t)
        return torch.add(x_t * read.x0_from_x, self.answer(x_t, t), alpha=read.x0_from_out)

    def eps(self, x_t: Tensor, t: float) -> Tensor:
        """E[eps | x_t] as predicted, a new tensor of x_t's shape."""
        read = self.reading(t)
        return torch.add(x_t * read.eps_from_x, self.answer(x_t, t), alpha=read.eps_from_out)
