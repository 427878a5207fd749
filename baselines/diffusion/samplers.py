"""Samplers of one epsilon-predicting checkpoint, all called alike: (x_T, eps_fn, process, draw, noise) -> x_0.

Each step is a few fused tensor operations whose coefficients are computed beforehand in float64; each calls
eps_fn once, so S steps cost exactly S function evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast, get_args

import torch
from torch import Tensor

from baselines.diffusion.process import Process, Spacing, Transition, Variance, subsequence
from baselines.errors import UserError
from baselines.types import Draw

EpsFn = Callable[[Tensor, int], Tensor]
"""eps_fn(x_t, t): the predicted noise, of x_t's shape, all images at timestep t in 0 .. T - 1."""

Sampler = Callable[[Tensor, EpsFn, Process, Draw, Iterator[Tensor]], Tensor]
"""sampler(x_T, eps_fn, process, draw, noise): x_0 (B, C, H, W), pixels about [-1, 1].

noise yields independent standard normal tensors of x_T's shape; it is asked only in steps that use it.
"""


class Step(NamedTuple):
    """x_s = from_x x_t + from_eps eps + sigma z, and the same by way of x_0 where that is clamped.

    x_0 = x0_from_x x_t + x0_from_eps eps;  x_s = keep x_t + pull x_0 + sigma z.
    """

    t: int
    from_x: float
    from_eps: float
    sigma: float
    x0_from_x: float
    x0_from_eps: float
    keep: float
    pull: float


def linear_step(move: Transition, mean_variance: float, sigma: float) -> Step:
    """One step of the family of Song et al. 2020 (arXiv:2010.02502), eq. 12.

    x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - mean_variance) eps + sigma z, where mean_variance = sigma^2 keeps
    the marginals of the forward process; sigma-hat alone lets the two differ.
    """
    direction = math.sqrt(max(move.noise_s - mean_variance, 0.0))
    keep = direction / math.sqrt(move.noise_t)
    x0_from_x, x0_from_eps = 1 / math.sqrt(move.abar_t), -math.sqrt(move.noise_t / move.abar_t)
    pull = math.sqrt(move.abar_s) - keep * math.sqrt(move.abar_t)
    return Step(
        t=move.t,
        from_x=math.sqrt(move.abar_s / move.abar_t),
        from_eps=direction + math.sqrt(move.abar_s) * x0_from_eps,
        sigma=sigma,
        x0_from_x=x0_from_x,
        x0_from_eps=x0_from_eps,
        keep=keep,
        pull=pull,
    )


def ddpm_steps(process: Process, draw: Draw) -> list[Step]:
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, algorithm 2) over S of the T timesteps, last first.

    variance: beta, or beta_tilde (the default), each that of the S-step chain. The last step adds no noise.

    Raises:
        UserError: if the draw asks for an eta, or for a variance there is not.
    """
    if draw.eta != 0:
        raise UserError(f"sampler 'ddpm' has no eta, got {draw.eta:g}; 'ddim' has one (eta=1 is beta_tilde)")
    variance = draw.variance or "beta_tilde"
    if variance not in get_args(Variance):
        raise UserError(f"variance: 'ddpm' has {', '.join(get_args(Variance))}, got {variance!r}")
    return [
        linear_step(move, move.beta_tilde, _last_is_quiet(move, variance == "beta")) for move in _moves(process, draw)
    ]


def ddim_steps(process: Process, draw: Draw) -> list[Step]:
    """DDIM (Song et al. 2020, arXiv:2010.02502, eqs. 12 and 16) over S of the T timesteps, last first.

    eta in [0, 1]: 0 is deterministic, 1 the DDPM posterior. variance "sigma_hat" (app. D.3): the mean of eta = 1
    with noise of the larger variance 1 - abar_t / abar_s, and none in the last step.

    Raises:
        UserError: if eta or the variance is none of these.
    """
    if not 0 <= draw.eta <= 1:
        raise UserError(f"eta: expected 0 to 1, got {draw.eta:g}")
    if draw.variance not in (None, "sigma_hat"):
        raise UserError(f"variance: 'ddim' has sigma_hat or none at all, got {draw.variance!r}")
    if draw.variance == "sigma_hat":
        if draw.eta not in (0, 1):
            raise UserError(f"eta: sigma_hat takes the mean of eta=1, got eta={draw.eta:g}; leave it out")
        return [linear_step(move, move.beta_tilde, _last_is_quiet(move, True)) for move in _moves(process, draw)]
    return [
        linear_step(move, draw.eta**2 * move.beta_tilde, draw.eta * math.sqrt(move.beta_tilde))
        for move in _moves(process, draw)
    ]


def run_steps(x: Tensor, eps_fn: EpsFn, steps: list[Step], noise: Iterator[Tensor], clip: bool) -> Tensor:
    """Go through the steps from x; with `clip`, the predicted x_0 is clamped to [-1, 1] in every one.

    Where it is clamped, eps becomes the one that belongs to x_t and the clamped x_0, so that eta=1 remains
    the DDPM posterior.
    """
    for step in steps:
        eps = eps_fn(x, step.t)
        if clip:
            x_0 = torch.add(x * step.x0_from_x, eps, alpha=step.x0_from_eps).clamp_(-1, 1)
            x = (x * step.keep).add_(x_0, alpha=step.pull)
        else:
            x = (x * step.from_x).add_(eps, alpha=step.from_eps)
        if step.sigma > 0:
            x.add_(next(noise), alpha=step.sigma)
    return x


def ddpm(x: Tensor, eps_fn: EpsFn, process: Process, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """Ancestral sampling; see `ddpm_steps`."""
    return run_steps(x, eps_fn, ddpm_steps(process, draw), noise, draw.clip)


def ddim(x: Tensor, eps_fn: EpsFn, process: Process, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """DDIM; see `ddim_steps`."""
    return run_steps(x, eps_fn, ddim_steps(process, draw), noise, draw.clip)


SAMPLERS: Mapping[str, Sampler] = {"ddpm": ddpm, "ddim": ddim}
STEPS: Mapping[str, Callable[[Process, Draw], list[Step]]] = {"ddpm": ddpm_steps, "ddim": ddim_steps}
"""The steps that each sampler would take; making them finds what it cannot do."""


def _moves(process: Process, draw: Draw) -> Iterator[Transition]:
    """The transitions of the draw's timesteps, last first; `steps` None means all T."""
    if draw.options:
        raise UserError(f"draw.options: {draw.sampler!r} has none, got {', '.join(sorted(draw.options))}")
    steps = process.timesteps if draw.steps is None else draw.steps
    chosen = subsequence(steps, process.timesteps, cast("Spacing", draw.spacing))
    for t, s in zip(reversed(chosen), [*reversed(chosen[:-1]), -1], strict=True):
        yield process.transition(t, s)


def _last_is_quiet(move: Transition, large: bool) -> float:
    """Standard deviation of an ancestral step: that of beta if `large`, else of beta_tilde; 0 into the data."""
    return 0.0 if move.s == -1 else math.sqrt(move.beta if large else move.beta_tilde)
