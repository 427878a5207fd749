"""What all models with a Gaussian noising chain share: sampling by any sampler, and the variational bound.

Ho et al. 2020 (arXiv:2006.11239), eq. 5, summed over all T timesteps, its parts L_T, L_{t-1} and L_0 apart; L_0 is
the discretised Gaussian of eq. 13. A model adds its network's answer, its reverse variance and its losses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.contract import Draw, GenerativeModel, Given, HasLikelihood, Nats, Noise, Trains
from baselines.data.likelihood import discretised_gaussian, from_signed, to_signed
from baselines.diffusion.acceleration import Forwards, acceleration_of
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.process import Process
from baselines.diffusion.samplers import Sampler
from baselines.diffusion.sampling import SAMPLERS
from baselines.nets.unet import TIME_RANGE
from baselines.types import Kind

_TIMES = 4096  # tensors of one number kept; to make one takes as long as half of a sampler's step


class Diffusion(GenerativeModel, HasLikelihood):
    """A submodule `unet` that is called with x_t and times in 0 .. TIME_RANGE; `native` is `ddpm` with all T steps."""

    samplers: ClassVar[tuple[str, ...]] = ("native", *SAMPLERS)
    network: ClassVar[str | None] = "unet"
    draw_keys: ClassVar[tuple[str, ...]] = ("steps", "eta", "spacing", "variance", "clip", "options")
    likelihoods: ClassVar[Mapping[str, Kind]] = {"vlb": "upper_bound"}

    unet: torch.nn.Module

    @classmethod
    @abstractmethod
    def chain(cls, config: Any) -> Denoiser:
        """Process and reading of a model of this config, its network that of no weights: what a draw is checked by."""

    @property
    def denoiser(self) -> Denoiser:
        """What the samplers are shown."""
        return replace(self._chain, network=self.answer)

    @property
    def process(self) -> Process:
        """The noising chain."""
        return self._chain.process

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self._chain = self.chain(config)
        self._forwards = Forwards()
        self._times: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}
        self._times_per_step = TIME_RANGE / self._chain.process.timesteps

    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The network's answer to x_t (B, C, H, W), all images at one time t in 0 .. T - 1."""
        key = t, x_t.dtype, x_t.device
        time = self._times.get(key)
        if time is None:
            if len(self._times) >= _TIMES:
                self._times.clear()
            with torch.inference_mode(False):  # one that may be kept whoever asks
                time = torch.full((1,), t * self._times_per_step, dtype=x_t.dtype, device=x_t.device)
            self._times[key] = time
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

    # Images

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Whether the sampler can make these steps of this chain."""
        super().check_draw(config, draw)
        _, draw = acceleration_of(_named(draw))
        SAMPLERS[draw.sampler].check(cls.chain(config), draw)

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """From x_T ~ N(0, I) by the draw's sampler."""
        x_0 = self.draw_x0(noise.normal("x_T", n, self.shape.chw), draw, noise)
        return from_signed(x_0, self.shape.levels)

    @torch.no_grad()
    def draw_x0(self, x_T: Tensor, draw: Draw, noise: Noise) -> Tensor:
        """What the sampler makes of x_T (B, C, H, W), before it is rounded to levels."""
        self.check_draw(self.config, draw)
        how, draw = acceleration_of(draw)
        sampler, draw = sampler_of(draw)
        steps = noise.normals("steps", len(x_T), self.shape.chw, sampler.noises(self.process, draw))
        with self._forwards.running(self.unet, how):
            return sampler.run(x_T, self.denoiser, draw, steps)


class GaussianDiffusion(Diffusion, Trains):
    """One that is trained here; samples come from the averaged weights."""

    averaged: ClassVar[tuple[str, ...]] = ("unet",)


def sampler_of(draw: Draw) -> tuple[Sampler, Draw]:
    """The algorithm of a draw, and the draw with its name: `native` is ancestral sampling."""
    named = _named(draw)
    return SAMPLERS[named.sampler], named


def _named(draw: Draw) -> Draw:
    return replace(draw, sampler="ddpm") if draw.sampler == "native" else draw


def no_network(x_t: Tensor, t: float) -> Tensor:
    """Stands where a draw is only checked."""
    raise AssertionError("a draw is checked without calling the network")
