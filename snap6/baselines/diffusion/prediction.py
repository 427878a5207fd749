"""What a diffusion network may predict, and how x_0 and eps follow from it, linearly, at each timestep.

eps: Ho et al. 2020 (arXiv:2006.11239), eq. 11; x0 and mean: its section 3.2, which weighs all three; v: Salimans and
Ho 2022 (arXiv:2202.00512), appendix D, v = sqrt(abar) eps - sqrt(1 - abar) x_0.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from baselines.diffusion.process import Process
from baselines.errors import UserError

Prediction = Literal["eps", "x0", "v", "mean"]


class Reading(NamedTuple):
    """x_0 = x0_from_x x_t + x0_from_out out;  eps = eps_from_x x_t + eps_from_out out."""

    x0_from_x: float
    x0_from_out: float
    eps_from_x: float
    eps_from_out: float


class Target(NamedTuple):
    """out = from_x0 x_0 + from_eps eps: what the network should answer of x_t made from these."""

    from_x0: float
    from_eps: float


def target(prediction: Prediction, process: Process, t: float) -> Target:
    """The network's target at a timestep; at the last one of a zero-terminal chain too."""
    signal, noise = process.signal(t), process.sigma(t)
    if prediction == "eps":
        return Target(0.0, 1.0)
    if prediction == "x0":
        return Target(1.0, 0.0)
    if prediction == "v":
        return Target(-noise, signal)
    move = process.transition(t, t - 1)
    return Target(move.mean_x0 + move.mean_xt * signal, move.mean_xt * noise)


def reading(prediction: Prediction, process: Process, t: float) -> Reading:
    """How to read the network's answer at a timestep.

    Raises:
        UserError: where x_t holds no signal at all, so that an answer in eps does not tell x_0.
    """
    signal, noise = process.signal(t), process.sigma(t)
    if prediction == "x0":
        return Reading(0.0, 1.0, 1 / noise, -signal / noise)
    if prediction == "v":
        return Reading(signal, -noise, noise, signal)
    if signal == 0:
        raise UserError(
            f"prediction {prediction!r} tells no x_0 of pure noise; a zero-terminal chain takes 'x0' or 'v'"
        )
    if prediction == "eps":
        return Reading(1 / signal, -noise / signal, 0.0, 1.0)
    move = process.transition(t, t - 1)
    of_out, of_x = 1 / move.mean_x0, -move.mean_xt / move.mean_x0
    return Reading(of_x, of_out, (1 - signal * of_x) / noise, -signal * of_out / noise)


def check_prediction(prediction: Prediction, process: Process) -> None:
    """Refuse a prediction that this process cannot be sampled with, before anything is trained.

    Raises:
        UserError: eps or mean on a chain that ends in pure noise.
    """
    if math.isinf(process.log_abar(process.timesteps - 1)):
        reading(prediction, process, process.timesteps - 1)
