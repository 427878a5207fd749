"""Predictor and corrector: ancestral steps, each after some steps of annealed Langevin dynamics.

Song and Ermon 2019 (arXiv:1907.05600), algorithm 1; Song et al. 2021 (arXiv:2011.13456), algorithms 3 and 5 (VP), in
the order of their code: at each time the corrector goes first, so that the last step is the predictor's, without noise.
Departure: the step size is each image's own; theirs is the batch's mean, by which image i would hang on the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.grids import Option, read_options
from baselines.diffusion.process import Process, Transition
from baselines.diffusion.samplers import Sampler, count, linear_step, moves
from baselines.errors import UserError
from baselines.types import Draw

OPTIONS = {
    "corrections": Option(1, 0, whole=True),  # M, Langevin steps at each time
    "snr": Option(0.16, 1e-6),  # r, how large they are
}


def check(denoiser: Denoiser, draw: Draw) -> None:
    """A variance and no eta."""
    read_options(draw, OPTIONS)
    if draw.eta != 0:
        raise UserError(f"sampler {draw.sampler!r} has no eta, got {draw.eta:g}; 'ddim' has one")
    if draw.variance not in (None, "beta", "beta_tilde"):
        raise UserError(f"variance: {draw.sampler!r} has beta, beta_tilde, got {draw.variance!r}")
    moves(denoiser.process, replace(draw, options={}))


def langevin(x: Tensor, denoiser: Denoiser, draw: Draw, noise: Iterator[Tensor]) -> Tensor:
    """At each of S timesteps, last first, options.corrections Langevin steps and one ancestral step to the next.

    A Langevin step is x + e g + sqrt(2 e) z with the score g = -eps / sqrt(1 - abar_t) and
    e = 2 (1 - beta) (r |z| / |g|)^2, r = options.snr and beta the predictor's. variance: the predictor's, beta_tilde
    or beta. With `clip` the predicted x_0 is clamped to [-1, 1], and the score is the one that belongs to it.
    S (1 + M) network calls.
    """
    check(denoiser, draw)
    options = read_options(draw, OPTIONS)
    for move in moves(denoiser.process, replace(draw, options={})):
        for _ in range(int(options["corrections"])):
            x = _corrected(x, denoiser, move, options["snr"], draw.clip, next(noise))
        variance = move.beta if draw.variance == "beta" else move.beta_tilde
        step = linear_step(move, denoiser.reading(move.t), move.beta_tilde, 0.0)
        x_0 = _x_0(x, denoiser, move.t, draw.clip)
        x = (x * step.keep).add_(x_0, alpha=step.pull)
        if move.s != -1:
            x.add_(next(noise), alpha=math.sqrt(variance))
    return x


def _corrected(x: Tensor, denoiser: Denoiser, move: Transition, snr: float, clip: bool, z: Tensor) -> Tensor:
    """One Langevin step at time move.t (algorithm 5, lines 5 to 8)."""
    x_0 = _x_0(x, denoiser, move.t, clip)
    g = torch.add(x, x_0, alpha=-math.sqrt(move.abar_t)).div_(-move.noise_t)
    ratio = _norm(z) / _norm(g).clamp(min=torch.finfo(x.dtype).tiny)
    size = 2 * (1 - move.beta) * (snr * ratio) ** 2
    return torch.addcmul(x, g, size).addcmul_(z, (2 * size).sqrt())


def _x_0(x: Tensor, denoiser: Denoiser, t: float, clip: bool) -> Tensor:
    x_0 = denoiser.x_0(x, t)
    return x_0.clamp_(-1, 1) if clip else x_0


def _norm(x: Tensor) -> Tensor:
    """Each image's Euclidean norm, (B, 1, ...)."""
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms.view(-1, *[1] * (x.ndim - 1))


def _calls(process: Process, draw: Draw) -> int:
    return count(process, draw) * (1 + int(read_options(draw, OPTIONS)["corrections"]))


LANGEVIN = Sampler(
    "Ancestral with Langevin corrector",
    "Song et al. 2021, arXiv:2011.13456, algorithms 3 and 5",
    langevin,
    check,
    _calls,
    _calls,
    linear=False,
)
