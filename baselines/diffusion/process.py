"""The Gaussian forward process of diffusion models: schedules, q(x_t | x_0), posteriors, bound, sub-sequences.

Ho et al. 2020 (arXiv:2006.11239), eqs. 2-8; cosine schedule and clipped variance of Nichol and Dhariwal 2021
(arXiv:2102.09672), eq. 17 and sec. 3.1; sub-sequences of Song et al. 2020 (arXiv:2010.02502), app. D.2; zero
terminal SNR of Lin et al. 2023 (arXiv:2305.08891), algorithm 1.
Timesteps are counted from 0 as code does: t = 0 .. T - 1 here is the papers' t + 1, and t = -1 is the data. Between
them log abar is linear in t: the diffusion of Song et al. 2021 (arXiv:2011.13456, "VP") whose rate is constant over
each step, so that solvers of its ODE may stop anywhere.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from baselines.errors import UserError

Schedule = Literal["linear", "quadratic", "sigmoid", "cosine"]
Variance = Literal["beta", "beta_tilde"]
Spacing = Literal["uniform", "trailing", "quadratic"]

REFERENCE_TIMESTEPS = 1000  # the chain for which the papers give beta_start and beta_end
DEFAULT_BETAS = 1e-4, 0.02  # beta_start and beta_end of every config
_LARGEST_BETA = 0.999  # keeps the cosine schedule from a singular last step
_SMALLEST_LOG_ABAR = -35.0  # from -36.7 on 1 - abar is 1 in float64, and an x_0 told by eps has no digit left


@dataclass(frozen=True)
class Transition:
    """The Gaussians between x_t and an earlier x_s, as float64 numbers; s = -1 is the data.

    abar: signal variance, the product of 1 - beta up to that timestep (1 for the data). noise: 1 - abar, not
    computed by that difference, which loses digits at the first timesteps. beta: variance q(x_t | x_s) adds,
    1 - abar_t / abar_s. beta_tilde: variance of q(x_s | x_t, x_0), 0 for the data.
    """

    t: float
    s: float
    abar_t: float
    abar_s: float
    noise_t: float
    noise_s: float
    beta: float
    beta_tilde: float

    @property
    def mean_x0(self) -> float:
        """Weight of x_0 in the mean of q(x_s | x_t, x_0) (Ho et al., eq. 7)."""
        return math.sqrt(self.abar_s) * self.beta / self.noise_t

    @property
    def mean_xt(self) -> float:
        """Weight of x_t in the mean of q(x_s | x_t, x_0) (Ho et al., eq. 7)."""
        return math.sqrt(self.abar_t / self.abar_s) * self.noise_s / self.noise_t


@dataclass(frozen=True, eq=False)
class Process:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps with pixels in [-1, 1]; betas: float64 (T,) in (0, 1).

    The last beta may be 1: x_{T-1} is then pure noise (zero terminal SNR).
    """

    betas: Tensor

    def __post_init__(self) -> None:
        if self.betas.dtype != torch.float64 or self.betas.ndim != 1 or len(self.betas) == 0:
            raise ValueError(f"betas: expected float64 (T,), got {self.betas.dtype} {tuple(self.betas.shape)}")
        if not bool(((self.betas > 0) & (self.betas < 1))[:-1].all()) or not 0 < float(self.betas[-1]) <= 1:
            raise ValueError("betas: expected values in (0, 1), the last may be 1")
        logs = [0.0, *torch.log1p(-self.betas).cumsum(0).tolist()]  # log 0 = -inf where the last beta is 1
        object.__setattr__(self, "_log_abar", logs)  # at t + 1, so that the data is index 0

    @property
    def timesteps(self) -> int:
        """T, the length of the chain."""
        return len(self.betas)

    @property
    def abar(self) -> Tensor:
        """Signal variance after each step, float64 (T,)."""
        return torch.tensor(self._logs()[1:], dtype=torch.float64).exp()

    @property
    def noise(self) -> Tensor:
        """Noise variance 1 - abar after each step, float64 (T,)."""
        return -torch.tensor(self._logs()[1:], dtype=torch.float64).expm1()

    def log_abar(self, t: float) -> float:
        """log abar at any time in -1 .. T - 1, linear between timesteps; -inf where x_t is pure noise."""
        logs, place = self._logs(), t + 1
        below = int(place)
        if below == place:
            return logs[below]
        return logs[below] + (place - below) * (logs[below + 1] - logs[below])

    def time_of(self, log_abar: float) -> float:
        """The time in -1 .. T - 1 at which abar has this logarithm: the inverse of `log_abar`, clamped to the chain."""
        logs = self._logs()
        after = bisect.bisect_left(logs, -log_abar, key=lambda log: -log)
        if after == 0:
            return -1.0
        if after == len(logs):
            return float(self.timesteps - 1)
        return after - 2 + (log_abar - logs[after - 1]) / (logs[after] - logs[after - 1])

    def signal(self, t: float) -> float:
        """sqrt(abar_t), the weight of x_0 in x_t."""
        return math.exp(self.log_abar(t) / 2)

    def sigma(self, t: float) -> float:
        """sqrt(1 - abar_t), the weight of eps in x_t."""
        return math.sqrt(-math.expm1(self.log_abar(t)))

    def transition(self, t: float, s: float) -> Transition:
        """The step between a time t and an earlier s, both in -1 .. T - 1."""
        assert -1 <= s < t < self.timesteps, (t, s)
        log_t, log_s = self.log_abar(t), self.log_abar(s)
        noise_t, noise_s = -math.expm1(log_t), -math.expm1(log_s)
        beta = -math.expm1(log_t - log_s)
        return Transition(t, s, math.exp(log_t), math.exp(log_s), noise_t, noise_s, beta, noise_s * beta / noise_t)

    def variance(self, t: int, kind: Variance) -> float:
        """Variance of p(x_{t-1} | x_t) for one step of the full chain, above 0.

        The decoder (t = 0) has no posterior variance; beta_tilde takes that of t = 1 there, as Nichol and
        Dhariwal do.
        """
        if kind == "beta_tilde":
            at = max(t, min(1, self.timesteps - 1))
            if at > 0:
                return self.transition(at, at - 1).beta_tilde
        return self.transition(t, t - 1).beta

    def log_variances(self, t: int) -> tuple[float, float]:
        """(log beta_tilde, log beta) of one step of the full chain, between which a learned variance lies."""
        return math.log(self.variance(t, "beta_tilde")), math.log(self.variance(t, "beta"))

    def diffuse(self, x_0: Tensor, t: float, eps: Tensor) -> Tensor:
        """A draw of q(x_t | x_0) from standard normal eps of x_0's shape, all images at the same time."""
        return torch.add(x_0 * self.signal(t), eps, alpha=self.sigma(t))

    def predict_x0(self, x_t: Tensor, eps: Tensor, t: float) -> Tensor:
        """The x_0 for which x_t is sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (Ho et al., eq. 15)."""
        log = self.log_abar(t)
        return torch.add(x_t * math.exp(-log / 2), eps, alpha=-math.sqrt(math.expm1(-log)))

    def prior_nats(self, x_0: Tensor) -> Tensor:
        """L_T = KL(q(x_T | x_0) || N(0, 1)) in nats, (B,), of x_0 (B, ...) (Ho et al., eq. 5)."""
        log = self._logs()[-1]
        noise = -math.expm1(log)
        return 0.5 * (math.exp(log) * x_0.square() + (noise - 1 - math.log(noise))).flatten(1).sum(1)

    def transition_nats(self, x_0: Tensor, x_0_hat: Tensor, t: int, variance: float | Tensor) -> Tensor:
        """L_{t-1} for t >= 1: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, (B,) (Ho et al., eq. 5).

        p is the Gaussian of this variance, one number or one a pixel (B, C, H, W), whose mean is the posterior's with
        the prediction x_0_hat for x_0.
        """
        step = self.transition(t, t - 1)
        error = (x_0 - x_0_hat).square()
        if isinstance(variance, Tensor):
            ratio = step.beta_tilde / variance
            pixels = ratio - 1 - ratio.log() + step.mean_x0**2 / variance * error
            return 0.5 * pixels.flatten(1).sum(1)
        share = step.beta_tilde / variance
        spread = x_0[0].numel() * 0.5 * (share - 1 - math.log(share))
        return spread + step.mean_x0**2 / (2 * variance) * error.flatten(1).sum(1)

    def _logs(self) -> list[float]:
        logs: list[float] = self.__dict__["_log_abar"]
        return logs


@functools.lru_cache(maxsize=32)
def make_process(
    schedule: Schedule, timesteps: int, beta_start: float, beta_end: float, zero_terminal: bool = False
) -> Process:
    """The process of a named schedule with T timesteps.

    linear, quadratic (linear in sqrt(beta)) and sigmoid rise from beta_start to beta_end; these are the values
    of a chain of 1000 steps, and each step of another length does the work of 1000 / T of them,
    1 - (1 - beta)^(1000 / T): the noise at the end stays the same, and no beta leaves (0, 1) however short the
    chain. cosine takes neither. zero_terminal: shifted and scaled so that x_{T-1} is pure noise.

    Raises:
        UserError: on an unknown schedule, or numbers out of range or without effect.
    """
    if timesteps < 2:
        raise UserError(f"timesteps: expected at least 2, got {timesteps}")
    try:
        process = Process(_betas(schedule, timesteps, beta_start, beta_end))
        process = with_zero_terminal(process) if zero_terminal else process
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{_named(schedule, timesteps, beta_start, beta_end)}: no chain follows: {error}") from None
    end = process.log_abar(timesteps - 1 - zero_terminal)
    if end < _SMALLEST_LOG_ABAR:
        raise UserError(
            f"{_named(schedule, timesteps, beta_start, beta_end)}: expected a chain whose last timestep, unless it is "
            f"pure noise, has a log abar of {_SMALLEST_LOG_ABAR:g} or more, got {end:.3g}; take a smaller beta_end"
        )
    return process


def _named(schedule: str, timesteps: int, beta_start: float, beta_end: float) -> str:
    return f"schedule {schedule!r}, timesteps {timesteps}, beta_start {beta_start:g}, beta_end {beta_end:g}"


def check_unused_betas(schedule: str, beta_start: float, beta_end: float) -> None:
    """Refuse rates that a schedule does not take.

    Raises:
        UserError: if they are not the defaults.
    """
    if (beta_start, beta_end) != DEFAULT_BETAS:
        raise UserError(
            f"beta_start, beta_end: the {schedule} schedule takes neither, got {beta_start:g}, {beta_end:g}; "
            "leave them out"
        )


def with_zero_terminal(process: Process) -> Process:
    """The chain with sqrt(abar) shifted so that its last value is 0, and scaled so that its first stays."""
    root = process.abar.sqrt()
    abar = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    return Process(1 - abar / before)


def with_first_beta(process: Process, beta: float) -> Process:
    """The chain whose first step has this variance; the others keep theirs.

    Raises:
        UserError: for a variance outside (0, 1).
    """
    if not 0 < beta < 1:
        raise UserError(f"variance of the first step: expected above 0 and below 1, got {beta}")
    return Process(torch.cat([process.betas.new_tensor([beta]), process.betas[1:]]))


def first_beta(levels: int) -> float:
    """A variance of the first step whose root is a quarter of a level on the scale of [-1, 1].

    Nichol and Dhariwal 2021, sec. 3.2, want that root a little below a level's width, so that no step is spent on
    noise that rounding removes.
    """
    return (0.5 / (levels - 1)) ** 2


def _betas(schedule: Schedule, timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    if schedule == "cosine":
        check_unused_betas(schedule, beta_start, beta_end)
        return _cosine(timesteps)
    if schedule not in get_args(Schedule):
        raise UserError(f"schedule: expected one of {', '.join(get_args(Schedule))}, got {schedule!r}")
    if not 0 < beta_start <= beta_end < 1:
        raise UserError(f"beta_start, beta_end: expected 0 < start <= end < 1, got {beta_start}, {beta_end}")
    ramp = torch.linspace(0, 1, timesteps, dtype=torch.float64)
    if schedule == "quadratic":
        root = math.sqrt(beta_start)
        betas = (root + (math.sqrt(beta_end) - root) * ramp) ** 2
    else:
        rise = torch.sigmoid(12 * ramp - 6) if schedule == "sigmoid" else ramp
        betas = beta_start + (beta_end - beta_start) * rise
    return -torch.expm1(torch.log1p(-betas) * (REFERENCE_TIMESTEPS / timesteps))


def _cosine(timesteps: int) -> Tensor:
    """Nichol and Dhariwal, eq. 17: abar_t = f(t) / f(0), f(t) = cos^2(pi / 2 (t / T + .008) / 1.008)."""
    angle = (torch.linspace(0, 1, timesteps + 1, dtype=torch.float64) + 0.008) / 1.008 * (math.pi / 2)
    f = torch.cos(angle) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=_LARGEST_BETA)


def subsequence(steps: int, timesteps: int, spacing: Spacing) -> list[int]:
    """Exactly S = `steps` distinct timesteps of 0 .. T - 1, rising, for every S in 1 .. T.

    uniform: floor(i T / S), which holds 0 (the paper's linear choice). trailing: its mirror image, which holds
    T - 1. quadratic: floor(c i^2) reaching 0.8 T, as the paper's code has it; where S is so large that squares
    would coincide near 0, each is moved up to the next free timestep.

    Raises:
        UserError: if S is not in 1 .. T, or the spacing is unknown.
    """
    if not 1 <= steps <= timesteps:
        raise UserError(f"steps: expected 1 to {timesteps} (the timesteps of this model), got {steps}")
    if spacing == "uniform":
        return [i * timesteps // steps for i in range(steps)]
    if spacing == "trailing":
        return [timesteps - 1 - i * timesteps // steps for i in reversed(range(steps))]
    if spacing != "quadratic":
        raise UserError(f"spacing: expected one of {', '.join(get_args(Spacing))}, got {spacing!r}")
    chosen: list[int] = []
    for i in range(steps):
        square = 4 * timesteps * i * i // (5 * max(steps - 1, 1) ** 2)
        free = chosen[-1] + 1 if chosen else 0
        chosen.append(min(max(square, free), timesteps - steps + i))
    return chosen
