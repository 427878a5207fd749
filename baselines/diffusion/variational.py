"""The terms of the variational bound in training: one timestep an image, mean and variance predicted by the network.

Nichol and Dhariwal 2021 (arXiv:2102.09672), eqs. 4-7 and 15; Sohl-Dickstein et al. 2015 (arXiv:1503.03585), eq. 14.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.data.likelihood import discretised_gaussian
from baselines.diffusion.prediction import Prediction, reading, target
from baselines.diffusion.process import Process


class Kernel(NamedTuple):
    """p(x_{t-1} | x_t) of each image: the predicted x_0, and log(sigma^2 / beta_tilde_t); both (B, C, H, W).

    beta_tilde of the last step (t = 0) is that of the one before, as in `Process.variance`.
    """

    x_0: Tensor
    log_ratio: Tensor


class ChainTables:
    """A chain's numbers by timestep, for batches in which each image has a time of its own."""

    def __init__(self, process: Process, prediction: Prediction) -> None:
        steps = range(process.timesteps)
        logs = [process.log_variances(t) for t in steps]
        readings = [reading(prediction, process, t) for t in steps]
        targets = [target(prediction, process, t) for t in steps]
        moves = [process.transition(t, t - 1) for t in steps]
        columns = {
            "signal": [process.signal(t) for t in steps],
            "sigma": [process.sigma(t) for t in steps],
            "log_small": [small for small, _ in logs],
            "gap": [large - small for small, large in logs],
            "x0_from_x": [read.x0_from_x for read in readings],
            "x0_from_out": [read.x0_from_out for read in readings],
            "target_x0": [wanted.from_x0 for wanted in targets],
            "target_eps": [wanted.from_eps for wanted in targets],
            "weight": [move.mean_x0**2 / math.exp(small) for move, (small, _) in zip(moves, logs, strict=True)],
        }
        self._columns = {name: torch.tensor(values) for name, values in columns.items()}

    def at(self, name: str, t: Tensor) -> Tensor:
        """A column at timesteps t (B,), float32 (B, 1, 1, 1), on t's device."""
        column = self._columns[name]
        if column.device != t.device:
            column = self._columns[name] = column.to(t.device)
        return column[t].view(-1, 1, 1, 1)

    def diffuse(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t of each image."""
        return self.at("signal", t) * x_0 + self.at("sigma", t) * eps

    def x_0(self, x_t: Tensor, out: Tensor, t: Tensor) -> Tensor:
        """The x_0 that the network's answer tells."""
        return self.at("x0_from_x", t) * x_t + self.at("x0_from_out", t) * out

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should answer."""
        return self.at("target_x0", t) * x_0 + self.at("target_eps", t) * eps

    def log_ratio(self, v: Tensor, t: Tensor) -> Tensor:
        """log(sigma^2 / beta_tilde) of v (Nichol and Dhariwal, eq. 15): 0 at -1, log(beta / beta_tilde) at 1."""
        return self.at("gap", t) * ((v + 1) / 2)

    def nats(self, images: Tensor, x_0: Tensor, kernel: Kernel, t: Tensor, levels: int) -> Tensor:
        """L_t in nats, (B,): a divergence of Gaussians for t >= 1, the discretised decoder's code length at t = 0.

        images: uint8 (B, C, H, W), x_0 the same in [-1, 1]; t: (B,).
        """
        r = kernel.log_ratio
        error = (x_0 - kernel.x_0).square()
        terms = 0.5 * (torch.expm1(-r) + r + self.at("weight", t) * torch.exp(-r) * error).flatten(1).sum(1)
        last = (t == 0).nonzero().flatten()
        if len(last) == 0:
            return terms
        log_std = 0.5 * (r[last] + self.at("log_small", t[last]))
        decoded = -discretised_gaussian(images[last], kernel.x_0[last], log_std, levels).flatten(1).sum(1)
        return terms.index_copy(0, last, decoded)
