"""The exact denoiser of Gaussian data: the Gaussian that fits the train images, drawn by every sampler.

What a sampler makes of a perfect network, with no error of training: E[eps | x_t] of N(mu, Sigma) is the Wiener filter,
diagonal in the eigenbasis of Sigma. Where nothing is clamped the samplers are linear, so that mean and covariance of
what they draw follow exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.contract import Draw, Fits, HasExactMoments, ImageShape, Model, Moments, Noise
from baselines.data.likelihood import to_signed
from baselines.diffusion.chain_model import ChainConfig, ChainModel, no_network, sampler_of
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_oracle import GaussianData
from baselines.diffusion.process import Process
from baselines.errors import UserError


@dataclass(frozen=True)
class Config(ChainConfig):
    """The chain; there is nothing else to choose."""


class ExactDenoiser(nn.Module):
    """E[eps | x_t], or E[x_0 | x_t] where the chain ends in pure noise, which eps tells nothing of."""

    mean: Tensor  # (D,) float64, along the eigenvectors
    variance: Tensor  # (D,) float64, the eigenvalues
    basis: Tensor  # (D, D) float64, eigenvectors as columns

    def __init__(self, dims: int, process: Process) -> None:
        super().__init__()
        self.process = process
        self.register_buffer("mean", torch.zeros(dims, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(dims, dtype=torch.float64))
        self.register_buffer("basis", torch.eye(dims, dtype=torch.float64))

    @property
    def of_x0(self) -> bool:
        """Whether it answers in x_0."""
        return math.isinf(self.process.log_abar(self.process.timesteps - 1))

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        """The answer to images (B, C, H, W), or to their coordinates along the eigenvectors (B, D)."""
        move, data = self.process.transition(t, -1), GaussianData(self.mean, self.variance)
        total, signal = data.total_variance(move), math.sqrt(move.abar_t)
        if self.of_x0:
            gain, offset = signal * self.variance / total, self.mean * move.noise_t / total
        else:
            gain = math.sqrt(move.noise_t) / total
            offset = -signal * self.mean * gain
        gain, offset = gain.to(x_t.dtype), offset.to(x_t.dtype)
        if x_t.ndim == 2:
            return torch.addcmul(offset, x_t, gain)
        basis = self.basis.to(x_t.dtype)
        return (torch.addcmul(offset, x_t.flatten(1) @ basis, gain) @ basis.T).view_as(x_t)


class OracleGaussian(ChainModel, Fits, HasExactMoments):
    """Without clipping a draw is made in the eigenbasis, where its noise is drawn too; only x_T and x_0 are rotated."""

    network: ClassVar[str | None] = "exact"

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        self.shape = shape
        self.exact = ExactDenoiser(shape.dims, self.process)

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The config's process, answered in eps, or in x_0 where it ends in pure noise."""
        return Denoiser(no_network, config.process, "x0" if config.zero_terminal else "eps")

    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The exact denoiser's."""
        out: Tensor = self.exact(x_t, t)
        return out

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Mean and covariance of the images, pixels in [-1, 1]; nothing here is random."""
        x = to_signed(images, self.shape.levels).flatten(1).double()
        values, vectors = torch.linalg.eigh(torch.cov(x.T))
        self.exact.variance.copy_(values.clamp(min=0))
        self.exact.basis.copy_(vectors)
        self.exact.mean.copy_(x.mean(0) @ vectors)

    @torch.no_grad()
    def draw_x0(self, x_T: Tensor, draw: Draw, noise: Noise) -> Tensor:
        """What the sampler makes of x_T (B, C, H, W), before it is rounded to levels."""
        if draw.clip:
            return super().draw_x0(x_T, draw, noise)
        basis = self.exact.basis.to(x_T.dtype)
        return (super().draw_x0(x_T.flatten(1) @ basis, draw, noise) @ basis.T).view_as(x_T)

    @torch.no_grad()
    def exact_moments(self, draw: Draw) -> Moments:
        """By the sampler itself, run on x_T = 0, on x_T = 1 and on 1 in each step's noise alone, in float64."""
        self.check_draw(self.config, draw)
        sampler, draw = sampler_of(draw)
        if not sampler.linear:
            raise UserError(f"exact moments: sampler {draw.sampler!r} is not linear in its noise; draw samples instead")
        if draw.clip:
            raise UserError(
                "exact moments: expected a draw with clip = false; a clamped x_0 is not linear in the noise"
            )
        rows = 2 + sampler.noises(self.process, draw)
        x = self.exact.mean.new_zeros(rows, self.shape.dims)
        x[1] = 1

        def impulses() -> Iterator[Tensor]:
            for row in range(2, rows):
                one = torch.zeros_like(x)
                one[row] = 1
                yield one

        out = sampler.run(x, self.denoiser, draw, impulses())
        return Moments(out[0], (out[1:] - out[0]).square().sum(0), self.exact.mean, self.exact.variance)


MODEL = Model("Gaussian oracle", "exact denoiser of Gaussian data (Wiener 1949)", Config, OracleGaussian)
