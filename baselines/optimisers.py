"""Optimisers and learning-rate schedules, built from `OptimiserConfig`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from baselines.contract import OptimiserConfig
from baselines.errors import UserError


def make_optimiser(
    config: OptimiserConfig, parameters: list[nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser over `parameters`, fused where torch has a fused kernel for the device.

    Raises:
        UserError: if the name is none of adam, adamw, sgd.
    """
    fused = device.type in ("cpu", "cuda")
    if config.name in ("adam", "adamw"):
        kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
        return kind(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused)
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.betas[0], weight_decay=config.weight_decay, fused=fused
        )
    raise UserError(f"optimiser: expected adam, adamw or sgd, got {config.name!r}")


def learning_rate(config: OptimiserConfig, fraction: float) -> float:
    """The learning rate when `fraction` of the budget in [0, 1) is done.

    Raises:
        UserError: if the decay is none of constant, linear, cosine.
    """
    fraction = fraction * config.rounds % 1 if config.rounds > 1 else fraction
    if config.warmup > 0 and fraction < config.warmup:
        return config.lr * max(fraction / config.warmup, 1e-3)
    left = 1 - (fraction - config.warmup) / max(1 - config.warmup, 1e-9)
    if config.decay == "constant":
        return config.lr
    if config.decay == "linear":
        return config.lr * (config.final + (1 - config.final) * left)
    if config.decay == "cosine":
        return config.lr * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * (1 - left))))
    raise UserError(f"decay: expected constant, linear or cosine, got {config.decay!r}")


def averaged_module(module: nn.Module, decay: float) -> AveragedModel:
    """The exponential average of a module's weights, of a decay that warms up as (1 + step) / (10 + step)."""

    def average(means: list[Tensor], values: list[Tensor], count: Tensor | int) -> None:
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(means, values, weight)

    return AveragedModel(module, multi_avg_fn=average)  # type: ignore[arg-type]
