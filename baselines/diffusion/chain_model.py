"""What all models with a Gaussian noising chain share, however they learn: a denoiser, and sampling by any sampler."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from baselines.contract import Draw, GenerativeModel, Given, Noise
from baselines.data.likelihood import from_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.process import Process, make_process
from baselines.diffusion.samplers import Sampler
from baselines.diffusion.sampling import SAMPLERS


@dataclass(frozen=True)
class ChainConfig:
    """The noising chain of a model that is not trained; Ho et al. 2020 by default."""

    timesteps: int = 1000  # T
    schedule: Literal["linear", "quadratic", "sigmoid", "cosine"] = "linear"
    beta_start: float = 1e-4  # of a chain of 1000 steps, where the schedule has one; pixels in [-1, 1]
    beta_end: float = 0.02
    zero_terminal: bool = False  # the chain ends in pure noise (Lin et al. 2023)

    @property
    def process(self) -> Process:
        """The chain."""
        return make_process(self.schedule, self.timesteps, self.beta_start, self.beta_end, self.zero_terminal)


class ChainModel(GenerativeModel):
    """Answers for x_t at any time of its chain; `native` is `ddpm` with all T steps."""

    samplers: ClassVar[tuple[str, ...]] = ("native", *SAMPLERS)
    draw_keys: ClassVar[tuple[str, ...]] = ("steps", "eta", "spacing", "variance", "clip", "options")

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self._chain = self.chain(config)

    @classmethod
    @abstractmethod
    def chain(cls, config: Any) -> Denoiser:
        """Process and reading of a model of this config, its network that of no weights: what a draw is checked by."""

    @abstractmethod
    def answer(self, x_t: Tensor, t: float) -> Tensor:
        """The answer to x_t (B, C, H, W), all images at one time t in 0 .. T - 1."""

    @property
    def denoiser(self) -> Denoiser:
        """What the samplers are shown."""
        return replace(self._chain, network=self.answer)

    @property
    def process(self) -> Process:
        """The noising chain."""
        return self._chain.process

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Whether the sampler can make these steps of this chain."""
        super().check_draw(config, draw)
        draw = _named(draw)
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
        sampler, draw = sampler_of(draw)
        steps = noise.normals("steps", len(x_T), tuple(x_T.shape[1:]), sampler.noises(self.process, draw))
        return sampler.run(x_T, self.denoiser, draw, steps)


def sampler_of(draw: Draw) -> tuple[Sampler, Draw]:
    """The algorithm of a draw, and the draw with its name: `native` is ancestral sampling."""
    named = _named(draw)
    return SAMPLERS[named.sampler], named


def _named(draw: Draw) -> Draw:
    return replace(draw, sampler="ddpm") if draw.sampler == "native" else draw


def no_network(x_t: Tensor, t: float) -> Tensor:
    """Stands where a draw is only checked."""
    raise AssertionError("a draw is checked without calling the network")
