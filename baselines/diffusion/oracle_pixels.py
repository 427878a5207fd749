"""The exact denoiser of independent discrete pixels: the train images' histograms, drawn by every sampler.

Beside the bound stands the exact likelihood that it bounds, so that what the bound loses is known: to Gaussian reverse
steps, to their variance and to the decoder (Ho et al. 2020, arXiv:2006.11239, eqs. 5 and 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.contract import Fits, HasLikelihood, ImageShape, Model, Nats, Noise
from baselines.data.likelihood import discretised_gaussian
from baselines.diffusion.chain_model import ChainConfig, ChainModel, no_network
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.pixel_oracle import PixelData, reverse_variance
from baselines.diffusion.process import Process
from baselines.errors import UserError
from baselines.types import Kind

_TABLE = 2**22  # posterior probabilities held at a time


@dataclass(frozen=True)
class Config(ChainConfig):
    """The chain and the histograms."""

    smoothing: float = 1.0  # images of uniform noise that are counted beside the real ones, so that no P is 0

    def __post_init__(self) -> None:
        if not self.smoothing > 0:
            raise UserError(f"oracle_pixels.smoothing: expected a positive number, got {self.smoothing}")


class ExactDenoiser(nn.Module):
    """E[x_0 | x_t], exactly."""

    probability: Tensor  # (D, L) float64

    def __init__(self, shape: ImageShape, process: Process) -> None:
        super().__init__()
        self.process = process
        uniform = torch.full((shape.dims, shape.levels), 1 / shape.levels, dtype=torch.float64)
        self.register_buffer("probability", uniform)

    @property
    def data(self) -> PixelData:
        """The pixels' distribution."""
        return PixelData(self.probability)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        """E[x_0 | x_t] of x_t (B, C, H, W)."""
        size = max(1, _TABLE // self.probability.numel())
        parts = [self.data.x_0(part, self.process, t)[0] for part in torch.split(x_t.flatten(1), size)]
        return torch.cat(parts).view_as(x_t)


class OraclePixels(ChainModel, Fits, HasLikelihood):
    """`exact` is the histograms' own; `vlb` has variance beta and the discretised decoder, `vlb_optimal` the best."""

    network: ClassVar[str | None] = "exact"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"exact": "exact", "vlb": "upper_bound", "vlb_optimal": "upper_bound"}

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(config)
        self.shape = shape
        self.exact = ExactDenoiser(shape, self.process)

    @classmethod
    def chain(cls, config: Config) -> Denoiser:
        """The config's process, answered in x_0."""
        return Denoiser(no_network, config.process, "x0")

    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The exact denoiser's."""
        out: Tensor = self.exact(x_t, t)
        return out

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Count the levels of each pixel; nothing here is random."""
        levels, smoothing = self.shape.levels, self.config.smoothing
        counts = torch.stack([(images.flatten(1) == level).sum(0) for level in range(levels)], 1).double()
        self.exact.probability.copy_((counts + smoothing / levels) / (len(images) + smoothing))

    @torch.no_grad()
    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """`exact` with its map over pixels, or a bound with one draw of x_t for each timestep, its parts and curve."""
        chosen = x.flatten(1).long()
        if name == "exact":
            table = self.exact.probability.log().expand(len(x), -1, -1)
            pixels = -table.gather(-1, chosen[..., None])[..., 0]
            return Nats(pixels.sum(1), maps={"pixel": pixels.view(x.shape)})
        x_0 = self.exact.data.values[chosen]
        terms = torch.stack(list(self._terms(chosen, x_0, name == "vlb_optimal", noise)), 1)
        first, last, middle = self.process.prior_nats(x_0), terms[:, 0], terms[:, 1:].sum(1)
        return Nats(first + middle + last, {"L_T": first, "L_{t-1}": middle, "L_0": last}, curves={"L_t": terms})

    def _terms(self, chosen: Tensor, x_0: Tensor, optimal: bool, noise: Noise) -> Iterator[Tensor]:
        """L_0, L_1, ..., L_{T-1} in nats, (B,) each; chosen: int64 (B, D)."""
        process, data = self.process, self.exact.data
        draws = noise.normals("vlb", len(x_0), (self.shape.dims,), process.timesteps)
        for t in range(process.timesteps):
            x_t = process.diffuse(x_0, t, next(draws).double())
            if t == 0 and optimal:
                yield -data.log_posterior(x_t, process, t).gather(-1, chosen[..., None]).flatten(1).sum(1)
                continue
            x_0_hat, posterior_variance = data.x_0(x_t, process, t)
            variance = reverse_variance(process, t, posterior_variance, "optimal" if optimal else "beta")
            if t == 0:
                pixels = discretised_gaussian(chosen, x_0_hat, 0.5 * variance.log(), self.shape.levels)
                yield -pixels.sum(1)
            else:
                yield process.transition_nats(x_0, x_0_hat, t, variance)


MODEL = Model("Pixel oracle", "exact denoiser of independent pixels (Bayes 1763)", Config, OraclePixels)
