"""What all trained models with a Gaussian noising chain share: a U-Net, and the variational bound.

Ho et al. 2020 (arXiv:2006.11239), eq. 5, summed over all T timesteps, its parts L_T, L_{t-1} and L_0 apart; L_0 is
the discretised Gaussian of eq. 13. A model adds its network's answer, its reverse variance and its losses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from baselines.contract import HasLikelihood, Nats, Noise, Trains
from baselines.data.likelihood import discretised_gaussian, to_signed
from baselines.diffusion.chain_model import ChainModel
from baselines.nets.unet import TIME_RANGE
from baselines.types import Kind


class GaussianDiffusion(ChainModel, Trains, HasLikelihood):
    """A submodule `unet` that is called with x_t and times in 0 .. TIME_RANGE."""

    averaged: ClassVar[tuple[str, ...]] = ("unet",)
    network: ClassVar[str | None] = "unet"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"vlb": "upper_bound"}

    unet: torch.nn.Module

    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The network's answer to x_t (B, C, H, W), all images at one time t in 0 .. T - 1."""
        time = torch.full((1,), t * (TIME_RANGE / self.process.timesteps), device=x_t.device, dtype=x_t.dtype)
        out: Tensor = self.unet(x_t, time)
        return out

    # Likelihood

    @abstractmethod
    def reverse(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """p(x_{t-1} | x_t) of the bound: the predicted x_0, not clamped, and the variance, 0-d or of x_t's shape."""

    @torch.no_grad()
    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """The variational bound with one draw of x_t for each of the T timesteps; parts L_T, L_{t-1} (summed), L_0.

        curves["L_t"]: its terms one by one, (B, T), L_0 first; L_T is not among them.
        """
        terms = torch.stack(list(self._terms(x, noise)), 1)
        first = self.process.prior_nats(to_signed(x, self.shape.levels))
        last, middle = terms[:, 0], terms[:, 1:].sum(1)
        return Nats(first + middle + last, {"L_T": first, "L_{t-1}": middle, "L_0": last}, curves={"L_t": terms})

    def _terms(self, x: Tensor, noise: Noise) -> Iterator[Tensor]:
        """L_0, L_1, ..., L_{T-1} in nats, (B,) each."""
        x_0 = to_signed(x, self.shape.levels)
        draws = noise.normals("vlb", len(x), self.shape.chw, self.process.timesteps)
        for t in range(self.process.timesteps):
            x_0_hat, variance = self.reverse(self.process.diffuse(x_0, t, next(draws)), t)
            x_0_hat = x_0_hat.clamp_(-1, 1)
            if t == 0:
                yield -discretised_gaussian(x, x_0_hat, 0.5 * variance.log(), self.shape.levels).flatten(1).sum(1)
            else:
                yield self.process.transition_nats(x_0, x_0_hat, t, variance)
