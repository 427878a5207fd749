"""What all trained models with a Gaussian noising chain share: a U-Net, and the variational bound.

Ho et al. 2020 (arXiv:2006.11239), eq. 5, summed over all T timesteps, its parts L_T, L_{t-1} and L_0 apart; L_0 is
the discretised Gaussian of eq. 13. A model adds its network's answer, its reverse variance and its losses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.contract import Draw, HasLikelihood, Illustrates, Nats, Noise, Strip, Trains
from baselines.data.likelihood import dequantised_nats, discretised_gaussian, to_signed, unit_to_signed
from baselines.diffusion.acceleration import Forwards, acceleration_of, options_told
from baselines.diffusion.chain_model import ChainModel
from baselines.diffusion.illustrations import illustrate
from baselines.diffusion.pf_ode import PF_ODE_PROBES, PF_ODE_STEPS, first_time, last_time, log_density, random_signs
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE
from baselines.types import Kind

_TIMES = 4096  # tensors of one number kept; to make one takes as long as half of a sampler's step


class Diffusion(ChainModel, HasLikelihood, Illustrates):
    """A submodule `unet` that is called with x_t and times in 0 .. TIME_RANGE."""

    network: ClassVar[str | None] = "unet"
    likelihoods: ClassVar[Mapping[str, Kind]] = {"vlb": "upper_bound"}
    likelihoods_on_request: ClassVar[Mapping[str, Kind]] = {"pf_ode": "estimate"}

    unet: torch.nn.Module

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._forwards = Forwards()
        self._times: dict[tuple[float, torch.dtype, torch.device], Tensor] = {}
        self._times_per_step = TIME_RANGE / self.process.timesteps

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

    @classmethod
    def check_likelihood(cls, config: Any, name: str) -> None:
        """Whether the chain has a part over which the ODE can be solved."""
        if name == "pf_ode":
            last_time(cls.chain(config).process)

    @abstractmethod
    def reverse(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """p(x_{t-1} | x_t) of the bound: the predicted x_0, not clamped, and the variance, 0-d or of x_t's shape."""

    @torch.no_grad()
    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """`vlb`, or `pf_ode` on request."""
        return self._by_ode(x, noise) if name == "pf_ode" else self._bound(x, noise)

    def _bound(self, x: Tensor, noise: Noise) -> Nats:
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

    def _by_ode(self, x: Tensor, noise: Noise) -> Nats:
        """Of the deterministic sampler's images, dequantised: the mean over the probes of the trace.

        The ODE is followed from the noise level of the dequantisation on (`first_time`). What is estimated is so a
        bound on the code length of a model that stops its ODE at that level and rounds to the nearest bin, with one
        draw of the dequantisation.
        standard_errors["trace"]: of that mean. changes["half the steps"]: of the ODE's solver.
        """
        probes = random_signs(len(x), self.shape.chw, PF_ODE_PROBES, noise)
        denoiser, first = self.denoiser, first_time(self.process, self.shape.levels)

        def nats(steps: int) -> Tensor:
            def density(y: Tensor) -> Tensor:
                z, log_scale = unit_to_signed(y, self.shape.levels)
                return log_density(denoiser, z, probes, steps, first) + self.shape.dims * log_scale

            return dequantised_nats(density, x, self.shape, noise)

        each = nats(PF_ODE_STEPS)
        total = each.mean(1)
        return Nats(
            total,
            standard_errors={"trace": each.std(1) / PF_ODE_PROBES**0.5},
            changes={"half the steps": nats(PF_ODE_STEPS // 2).mean(1) - total},
        )

    # Images

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Whether the sampler can make these steps of this chain, and the network be run as the options say."""
        plain = acceleration_of(draw)[1]
        try:
            super().check_draw(config, plain)
        except UserError as error:
            raise UserError(f"{error}{options_told(plain) if 'draw.options' in str(error) else ''}") from None

    @torch.no_grad()
    def draw_x0(self, x_T: Tensor, draw: Draw, noise: Noise) -> Tensor:
        """What the sampler makes of x_T (B, C, H, W), before it is rounded to levels."""
        how, plain = acceleration_of(draw)
        with self._forwards.running(self.unet, how):
            return super().draw_x0(x_T, plain, noise)

    @torch.no_grad()
    def pictures(self, real: Tensor, noise: Noise) -> tuple[Strip, ...]:
        """Both processes, progressive generation, one noise over steps, interpolation and inversion by DDIM."""
        return illustrate(self.denoiser, real, self.shape.levels, noise)


class GaussianDiffusion(Diffusion, Trains):
    """One that is trained here; samples come from the averaged weights."""

    averaged: ClassVar[tuple[str, ...]] = ("unet",)
