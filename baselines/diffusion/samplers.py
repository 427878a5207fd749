"""Samplers of one checkpoint, all called alike: run(x_T, denoiser, draw, noise) -> x_0.

Here are the ancestral sampler of DDPM and the family of DDIM, one network call a step. Each step is a few fused tensor
operations whose coefficients are computed beforehand in float64, from what the network answers with straight to x_s.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.prediction import Prediction, Reading, reading
from baselines.diffusion.process import Process, Spacing, Transition, subsequence
from baselines.errors import UserError
from baselines.types import Draw

_PLANS = 32  # step lists kept, since a model draws batch after batch by the same few

Run = Callable[[Tensor, Denoiser, Draw, Iterator[Tensor]], Tensor]
"""run(x_T, denoiser, draw, noise): x_0 (B, C, H, W), pixels about [-1, 1].

noise yields independent standard normal tensors of x_T's shape; it is asked only in steps that use it.
"""


@dataclass(frozen=True)
class Sampler:
    """An algorithm and what it may be asked.

    check raises a UserError for a draw that it cannot do of this denoiser's chain, without calling the network.
    noises tells how many times at most it asks for noise; evaluations how often it calls the network. linear: with a
    linear network and without clipping, x_0 is linear in x_T and in the noise.
    """

    title: str
    source: str
    run: Run
    check: Callable[[Denoiser, Draw], None]
    noises: Callable[[Process, Draw], int]
    evaluations: Callable[[Process, Draw], int]
    linear: bool = True


class Step(NamedTuple):
    """x_s = from_x x_t + from_out out + sigma z, and the same by way of x_0 where that is clamped.

    x_0 = x0_from_x x_t + x0_from_out out;  x_s = keep x_t + pull x_0 + sigma z. A tensor is passed over less often if
    x_0 is clamped on the answer's scale: y = out + tilt x_t within +-bound;  x_s = keep x_t + tug y + sigma z.
    """

    t: float
    from_x: float
    from_out: float
    sigma: float
    x0_from_x: float
    x0_from_out: float
    keep: float
    pull: float
    tilt: float
    bound: float
    tug: float


def linear_step(move: Transition, read: Reading, mean_variance: float, sigma: float) -> Step:
    """One step of the family of Song et al. 2020 (arXiv:2010.02502), eq. 12.

    x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s - mean_variance) eps + sigma z, where mean_variance = sigma^2 keeps
    the marginals of the forward process; sigma-hat alone lets the two differ.
    """
    direction = math.sqrt(max(move.noise_s - mean_variance, 0.0))
    signal = math.sqrt(move.abar_s)
    keep = direction / math.sqrt(move.noise_t)
    pull = signal - keep * math.sqrt(move.abar_t)
    return Step(
        t=move.t,
        from_x=signal * read.x0_from_x + direction * read.eps_from_x,
        from_out=signal * read.x0_from_out + direction * read.eps_from_out,
        sigma=sigma,
        x0_from_x=read.x0_from_x,
        x0_from_out=read.x0_from_out,
        keep=keep,
        pull=pull,
        tilt=read.x0_from_x / read.x0_from_out,
        bound=1 / abs(read.x0_from_out),
        tug=pull * read.x0_from_out,
    )


def run_steps(x: Tensor, denoiser: Denoiser, steps: Sequence[Step], noise: Iterator[Tensor], clip: bool) -> Tensor:
    """Go through the steps from x; with `clip`, the predicted x_0 is clamped to [-1, 1] in every one.

    Where it is clamped, eps becomes the one that belongs to x_t and the clamped x_0, so that eta=1 remains
    the DDPM posterior.
    """
    answer = denoiser.answer if denoiser.learned_variance else denoiser.network
    for step in steps:
        x = step_mean(step, x, answer(x, step.t), clip)
        if step.sigma > 0:
            x.add_(next(noise), alpha=step.sigma)
    return x


def step_mean(step: Step, x: Tensor, out: Tensor, clip: bool) -> Tensor:
    """x_s without its noise, a new tensor, of x_t and the network's answer.

    k x is written x + (k - 1) x: a network's call leaves no other kernel in the processor's cache, and each one that
    has to be fetched costs more than its arithmetic on one image.
    """
    if clip:
        y = torch.clamp_(torch.add(out, x, alpha=step.tilt), -step.bound, step.bound)
        return torch.add(torch.add(x, x, alpha=step.keep - 1), y, alpha=step.tug)
    return torch.add(torch.add(x, x, alpha=step.from_x - 1), out, alpha=step.from_out)


# Ancestral sampling

_VARIANCES = ("beta", "beta_tilde", "learned", "analytic")


def check_ddpm(denoiser: Denoiser, draw: Draw) -> None:
    """Ancestral sampling has a variance and no eta."""
    if draw.eta != 0:
        raise UserError(f"sampler 'ddpm' has no eta, got {draw.eta:g}; 'ddim' has one (eta=1 is beta_tilde)")
    had = [
        name
        for name in _VARIANCES
        if (name != "learned" or denoiser.learned_variance) and (name != "analytic" or denoiser.x0_variance is not None)
    ]
    if _variance(denoiser, draw) not in had:
        raise UserError(f"variance: 'ddpm' has {', '.join(had)} here, got {draw.variance!r}")
    moves(denoiser.process, draw)


def _variance(denoiser: Denoiser, draw: Draw) -> str:
    return draw.variance or ("learned" if denoiser.learned_variance else "beta_tilde")


def ddpm(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, algorithm 2) over S of the T timesteps, last first.

    variance: that of the S-step chain, beta, beta_tilde, learned (Nichol and Dhariwal 2021; the default where there is
    one) or analytic (Bao et al. 2022). The last step adds no noise.
    """
    check_ddpm(denoiser, draw)
    kind = _variance(denoiser, draw)
    estimated = denoiser.x0_variance if kind == "analytic" else None
    process = denoiser.process
    steps = _ddpm_steps(process, count(process, draw), draw.spacing, denoiser.prediction, kind, estimated)
    if kind != "learned":
        return run_steps(x, denoiser, steps, noise, draw.clip)
    for step, log_variances in zip(steps, learned_log_variances(process, draw), strict=True):
        out, v = denoiser.network(x, step.t).chunk(2, 1)
        x = step_mean(step, x, out, draw.clip)
        if step.sigma > 0:
            x.addcmul_(interpolated_variance(v, *log_variances).sqrt_(), next(noise))
    return x


@functools.lru_cache(maxsize=_PLANS)
def _ddpm_steps(
    process: Process,
    steps: int,
    spacing: str,
    prediction: Prediction,
    kind: str,
    x0_variance: tuple[float, ...] | None,
) -> tuple[Step, ...]:
    made = []
    for move in _moves(process, steps, spacing):
        variance = move.beta if kind == "beta" else move.beta_tilde
        if x0_variance is not None:
            variance += move.mean_x0**2 * x0_variance[int(move.t)]
        sigma = 0.0 if move.s == -1 else math.sqrt(variance)
        made.append(linear_step(move, reading(prediction, process, move.t), move.beta_tilde, sigma))
    return tuple(made)


def learned_log_variances(process: Process, draw: Draw) -> list[tuple[float, float]]:
    """(log beta_tilde, log beta) of each step, last first; the last one's beta_tilde is that of the one before.

    Nichol and Dhariwal 2021, eq. 15 and their code, of the S-step chain.
    """
    path = moves(process, draw)
    tilde = [move.beta_tilde for move in path]
    tilde[-1] = tilde[-2] if len(path) > 1 else path[-1].beta
    return [(math.log(small), math.log(move.beta)) for small, move in zip(tilde, path, strict=True)]


def interpolated_variance(v: Tensor, log_small: float, log_large: float) -> Tensor:
    """exp(u log beta + (1 - u) log beta_tilde) of u = (v + 1) / 2, a new tensor of v's shape."""
    middle, half = (log_large + log_small) / 2, (log_large - log_small) / 2
    return (v * half).add_(middle).exp_()


# DDIM


def check_ddim(denoiser: Denoiser, draw: Draw) -> None:
    """eta in [0, 1], or the variance sigma_hat, which has the mean of eta = 1."""
    if not 0 <= draw.eta <= 1:
        raise UserError(f"eta: expected 0 to 1, got {draw.eta:g}")
    if draw.variance not in (None, "sigma_hat"):
        raise UserError(f"variance: 'ddim' has sigma_hat or none at all, got {draw.variance!r}")
    if draw.variance == "sigma_hat" and draw.eta != 0:
        raise UserError(f"eta: sigma_hat takes the mean of eta=1, got eta={draw.eta:g}; leave it out")
    moves(denoiser.process, draw)


def ddim(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """DDIM (Song et al. 2020, arXiv:2010.02502, eqs. 12 and 16) over S of the T timesteps, last first.

    eta in [0, 1]: 0 is deterministic, 1 the DDPM posterior. variance "sigma_hat" (app. D.3): the mean of eta = 1
    with noise of the larger variance 1 - abar_t / abar_s, and none in the last step.
    """
    check_ddim(denoiser, draw)
    process, larger = denoiser.process, draw.variance == "sigma_hat"
    steps = _ddim_steps(process, count(process, draw), draw.spacing, denoiser.prediction, draw.eta, larger)
    return run_steps(x, denoiser, steps, noise, draw.clip)


@functools.lru_cache(maxsize=_PLANS)
def _ddim_steps(
    process: Process, steps: int, spacing: str, prediction: Prediction, eta: float, larger: bool
) -> tuple[Step, ...]:
    made = []
    for move in _moves(process, steps, spacing):
        variance, sigma = eta**2 * move.beta_tilde, eta * math.sqrt(move.beta_tilde)
        if larger:
            variance, sigma = move.beta_tilde, 0.0 if move.s == -1 else math.sqrt(move.beta)
        made.append(linear_step(move, reading(prediction, process, move.t), variance, sigma))
    return tuple(made)


def moves(process: Process, draw: Draw) -> tuple[Transition, ...]:
    """The transitions of the draw's timesteps, last first; `steps` None means all T.

    Raises:
        UserError: for steps or a spacing that there are not, or any option.
    """
    if draw.options:
        raise UserError(f"draw.options: {draw.sampler!r} has none, got {', '.join(sorted(draw.options))}")
    return _moves(process, count(process, draw), draw.spacing)


@functools.lru_cache(maxsize=_PLANS)
def _moves(process: Process, steps: int, spacing: str) -> tuple[Transition, ...]:
    chosen = subsequence(steps, process.timesteps, cast("Spacing", spacing))
    path = [*reversed(chosen), -1]
    return tuple(process.transition(t, s) for t, s in itertools.pairwise(path))


def count(process: Process, draw: Draw) -> int:
    """S, the steps of a draw; `steps` None means all T."""
    return process.timesteps if draw.steps is None else draw.steps


def _ddim_noises(process: Process, draw: Draw) -> int:
    return 0 if draw.eta == 0 and draw.variance is None else count(process, draw)


DDPM = Sampler("DDPM ancestral", "Ho et al. 2020, arXiv:2006.11239", ddpm, check_ddpm, count, count)
DDIM = Sampler("DDIM", "Song et al. 2020, arXiv:2010.02502", ddim, check_ddim, _ddim_noises, count)
