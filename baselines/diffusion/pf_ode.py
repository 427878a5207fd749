"""log p(x) by the probability-flow ODE of a diffusion model (Song et al. 2021, arXiv:2011.13456, eqs. 13 and 39).

In the variable y = x / sqrt(abar) over sigma = sqrt((1 - abar) / abar) the ODE is dy / dsigma = eps(x, t), and
log p(y_0) = log p(y_T) + integral of tr(d eps / d y) dsigma. The trace is that of Hutchinson with fixed probes
(sec. 4.3 there); the solver is the classical Runge-Kutta method of fourth order on equal steps of log sigma, so that
an image's number does not depend on its batch.

Departures: the data are taken to be y at a small noise level and not at none (`first_time`); a chain that ends in pure
noise, where sigma is infinite, is begun one timestep before its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.grids import time_of_level
from baselines.diffusion.process import Process
from baselines.errors import UserError
from baselines.noise import Noise

PF_ODE_STEPS = 64  # of the solver, with four network calls each; half of them again for the error
PF_ODE_PROBES = 4  # of the trace

_State = tuple[Tensor, Tensor]


def first_time(process: Process, levels: int) -> float:
    """The time of the noise that dequantisation is like: its deviation, a level's width over sqrt(12); at least 0.

    Dequantised images are levels with uniform noise. At timestep 0 the network has seen levels with far less, between
    which there is next to no density: the ODE is stiff and the number a matter of its steps. Of 256 levels and the
    papers' schedules it is 0 all the same, as a level is narrower there than the first timestep's noise.
    """
    return time_of_level(process, 2 / (levels - 1) / math.sqrt(12))


def last_time(process: Process) -> float:
    """The last time with a finite noise level.

    Raises:
        UserError: if that is the first timestep, so that there is nothing to solve the ODE over.
    """
    last = process.timesteps - 1.0
    if math.isinf(process.log_abar(last)):
        last -= 1
    if last < 1:
        raise UserError(
            f"likelihood pf_ode: expected a chain with 2 timesteps or more that are not pure noise, got {last + 1:g}; "
            "give it more timesteps, or leave the likelihood out"
        )
    return last


def log_density(denoiser: Denoiser, y: Tensor, probes: Tensor, steps: int, first: float = 0.0) -> Tensor:
    """log p(y) in nats, (B, K), one estimate a probe; their mean is unbiased but for the solver's error.

    Args:
        denoiser: its network is called under autograd, 4 `steps` times.
        y: (B, C, H, W), pixels about [-1, 1], in float32 or float64.
        probes: (B, K, C, H, W) of mean 0 and unit covariance, such as random signs.
        steps: of the solver.
        first: the time that y belongs to, above -1 (the data, where sigma is 0) and below the last.

    Raises:
        ValueError: for no steps or times out of order; a UserError for a chain with nothing between its ends.
    """
    process = denoiser.process
    last = last_time(process)
    if steps < 1 or not -1 < first < last:
        raise ValueError(f"expected steps >= 1 and -1 < first < {last:g}, got {steps} and {first:g}")
    begin, end = (_log_sigma(process, t) for t in (first, last))

    def slope(log_sigma: float, y: Tensor) -> _State:
        """dy / dlog sigma and its divergence by each probe, (B, K)."""
        sigma = math.exp(log_sigma)
        t = min(max(process.time_of(-math.log1p(sigma**2)), first), last)
        signal = math.exp(-math.log1p(sigma**2) / 2)
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            out = sigma * denoiser.eps(signal * leaf, t)
            pulled = [
                torch.autograd.grad(out, leaf, probe, retain_graph=True)[0].mul_(probe).flatten(1).sum(1)
                for probe in probes.unbind(1)
            ]
        return out.detach(), torch.stack(pulled, 1)

    y, gained = runge_kutta(slope, y, begin, (end - begin) / steps, steps, y.new_zeros(probes.shape[:2]))
    dims = y[0].numel()
    log_abar = process.log_abar(last)
    x_T = y * math.exp(log_abar / 2)
    normal = -0.5 * (x_T.square().flatten(1).sum(1) + dims * math.log(2 * math.pi))
    return (normal + dims * log_abar / 2)[:, None] + gained


def runge_kutta(
    slope: Callable[[float, Tensor], _State], y: Tensor, begin: float, step: float, steps: int, gained: Tensor
) -> _State:
    """y' = slope(s, y)[0] from s = begin by so many steps, and `gained` plus the integral of slope(s, y)[1]."""
    for i in range(steps):
        s = begin + i * step
        dy_1, d_1 = slope(s, y)
        dy_2, d_2 = slope(s + step / 2, torch.add(y, dy_1, alpha=step / 2))
        dy_3, d_3 = slope(s + step / 2, torch.add(y, dy_2, alpha=step / 2))
        dy_4, d_4 = slope(s + step, torch.add(y, dy_3, alpha=step))
        y = torch.add(y, dy_1 + 2 * (dy_2 + dy_3) + dy_4, alpha=step / 6)
        gained = torch.add(gained, d_1 + 2 * (d_2 + d_3) + d_4, alpha=step / 6)
    return y, gained


def random_signs(n: int, chw: tuple[int, int, int], probes: int, noise: Noise) -> Tensor:
    """Rademacher probes, (n, probes, C, H, W)."""
    return torch.where(noise.uniform("probes", n, (probes, *chw)) < 0.5, -1.0, 1.0).to(noise.dtype)


def _log_sigma(process: Process, t: float) -> float:
    """log sqrt((1 - abar) / abar)."""
    return 0.5 * math.log(math.expm1(-process.log_abar(t)))
