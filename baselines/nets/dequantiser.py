"""How discrete images become continuous: uniformly, or by a learned flow q(u | x) on [0, 1]^D.

Variational dequantisation (Ho et al. 2019, arXiv:1902.00275, sec. 3.1): u = sigmoid(T_x(e)), where T_x is a chain of
affine couplings that see x, and log P(x) >= E_q[log p(x + u) - log q(u | x)] (eq. 11). Departures: e is logistic noise
in place of normal, so that q is exactly uniform while T_x is the identity, which it is before training; the networks
are plain convolutions and the couplings affine, for small data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.nets.couplings import checkerboard
from baselines.types import ImageShape

Dequantisation = Literal["uniform", "variational"]


@dataclass(frozen=True)
class DequantiserConfig:
    """Sizes of a learned q(u | x)."""

    width: int = 16  # features of its networks
    couplings: int = 2  # with checkerboard masks, after one scale and shift that depend on x alone

    def __post_init__(self) -> None:
        if self.width < 1 or self.couplings < 0:
            raise UserError(
                f"dequantiser: expected width >= 1 and couplings >= 0, got {self.width} and {self.couplings}"
            )


class Dequantiser(nn.Module, ABC):
    """A distribution q(u | x) on [0, 1]^D, as a map of uniform numbers."""

    name: Dequantisation

    @abstractmethod
    def forward(self, x: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, C, H, W) and log q(u | x) (B,), from uint8 x and uniform numbers in [0, 1), both (B, C, H, W)."""


def make_dequantiser(name: Dequantisation, shape: ImageShape, config: DequantiserConfig) -> Dequantiser:
    """The one that a model's config names."""
    return UniformDequantiser() if name == "uniform" else VariationalDequantiser(shape, config)


class UniformDequantiser(Dequantiser):
    """q = 1 everywhere."""

    name = "uniform"

    def forward(self, x: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers themselves; log q = 0."""
        return uniform, uniform.new_zeros(len(uniform))


class VariationalDequantiser(Dequantiser):
    """u = sigmoid(T_x(logit(uniform))) with a T_x that is learned, and is the identity at first."""

    name = "variational"

    def __init__(self, shape: ImageShape, config: DequantiserConfig) -> None:
        super().__init__()
        self.levels = shape.levels
        channels, width = shape.channels, config.width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(width, shape.height, shape.width))
        self.second = nn.Conv2d(width, width, 3, padding=1)
        masks = [torch.zeros(shape.chw), *(checkerboard(*shape.chw, k % 2) for k in range(config.couplings))]
        self.couplings = nn.ModuleList(ConditionalCoupling(mask, width) for mask in masks)

    def context(self, x: Tensor) -> Tensor:
        """What the couplings see of uint8 x, (B, width, H, W)."""
        pixels = to_signed(x, self.levels).to(self.first.weight.dtype)
        return F.relu(self.second(F.relu(self.first(pixels) + self.position)))

    def forward(self, x: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """One draw, differentiable in the weights."""
        tiny = torch.finfo(uniform.dtype).tiny
        e = uniform.clamp(min=tiny).log() - torch.log1p(-uniform)
        log_q, context = _log_logistic(e), self.context(x)
        for coupling in self.couplings:
            e, log_det = coupling(e, context)
            log_q = log_q - log_det
        return torch.sigmoid(e), log_q - _log_logistic(e)  # log of the sigmoid's derivative is the logistic's density

    def log_prob(self, u: Tensor, x: Tensor) -> Tensor:
        """log q(u | x) in nats (B,) of any u in (0, 1), (B, C, H, W)."""
        e, context = u.log() - torch.log1p(-u), self.context(x)
        log_q = -_log_logistic(e)
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, ConditionalCoupling)
            e, log_det = coupling.decode(e, context)
            log_q = log_q + log_det
        return log_q + _log_logistic(e)


class ConditionalCoupling(nn.Module):
    """An affine coupling whose network also sees a context; a mask of zeros leaves a map that sees nothing else."""

    mask: Tensor

    def __init__(self, mask: Tensor, width: int) -> None:
        """mask (C, H, W), 1 where e is kept; the context is (B, width, H, W)."""
        super().__init__()
        channels = mask.shape[0]
        self.register_buffer("mask", mask, persistent=False)
        self.first = nn.Conv2d(channels + width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 2 * channels, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(2 * channels, *mask.shape[1:]))  # of each position
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def _log_scale_and_shift(self, e: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        squashed = torch.tanh(e / 4) * self.mask  # logistic noise has long tails
        h = F.relu(self.first(torch.cat([squashed, context], 1)))
        raw, shift = (self.last(h) + self.bias).chunk(2, 1)
        free = 1 - self.mask
        return self.scale * torch.tanh(raw) * free, shift * free

    def forward(self, e: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """e exp(s) + t where the mask leaves e free, and the log-determinant (B,)."""
        log_scale, shift = self._log_scale_and_shift(e, context)
        return e * log_scale.exp() + shift, log_scale.flatten(1).sum(1)

    def decode(self, e: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse, with its log-determinant."""
        log_scale, shift = self._log_scale_and_shift(e, context)
        return (e - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


def _log_logistic(e: Tensor) -> Tensor:
    """log density of standard logistic noise, summed per image (B,)."""
    return -(F.softplus(e) + F.softplus(-e)).flatten(1).sum(1)
