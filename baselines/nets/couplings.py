"""Invertible layers with their log-determinants: squeeze, masks, affine couplings, factor-out.

Affine couplings, masks, squeeze and the multi-scale architecture are Dinh et al. 2017 (arXiv:1605.08803, sec.
3.2-3.6); activation normalisation is Kingma and Dhariwal 2018 (arXiv:1807.03039, sec. 3.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Flow(nn.Module, ABC):
    """An invertible map of images (B, C, H, W), called as flow(x) or flow(z, reverse=True)."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data towards noise: z and log|det dz/dx| (B,)."""

    @abstractmethod
    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `encode`: x and log|det dx/dz| (B,)."""

    def forward(self, x: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """`encode(x)`, or `decode(x)` if reverse; a module call, so that it can be counted."""
        return self.decode(x) if reverse else self.encode(x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Set what is set from a first batch of data, and return z."""
        return self.encode(x)[0]


class Chain(Flow):
    """Flows one after another."""

    def __init__(self, *flows: Flow) -> None:
        """In the order of `encode`."""
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for flow in self.flows:
            x, log_det = flow(x)
            total = total + log_det
        return x, total

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for flow in reversed(self.flows):
            z, log_det = flow(z, reverse=True)
            total = total + log_det
        return z, total

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        for flow in self.flows:
            x = flow.initialise(x)
        return x


class Squeeze(Flow):
    """(B, C, H, W) to (B, 4C, H/2, W/2)."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))


class ActNorm(Flow):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def _log_det(self, x: Tensor) -> Tensor:
        return self.log_scale.expand(x.shape[1:]).sum().expand(len(x))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x + self.shift) * self.log_scale.exp(), self._log_det(x)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp() - self.shift, -self._log_det(z)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        dims = [0] + [i + 1 for i in range(3) if self.shift.shape[i] == 1]
        self.shift.copy_(-x.mean(dims, keepdim=True)[0])
        self.log_scale.copy_(-x.std(dims, keepdim=True)[0].clamp(min=1e-3).log())
        return self.encode(x)[0]


class AffineCoupling(Flow):
    def __init__(self, network: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mask", mask, persistent=False)
        self.scale = nn.Parameter(torch.ones(mask.shape[0], 1, 1))

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x * self.mask
        raw, shift = self.network(kept).chunk(2, 1)
        free = 1 - self.mask
        return self.scale * torch.tanh(raw) * free, shift * free

    def encode(self, x):
        s, t = self._affine(x)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def decode(self, z):
        s, t = self._affine(z)
        return (z - t) * (-s).exp(), -s.flatten(1).sum(1)


class ChannelCoupling(Flow):
    def __init__(self, network: nn.Module, channels: int, kept: int, swap: bool) -> None:
        super().__init__()
        self.network, self.swap, self.kept = network, swap, kept
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(channels - kept, 1, 1))

    def _split(self, x):
        if self.swap:
            b, a = x.split([self.channels - self.kept, self.kept], 1)
        else:
            a, b = x.split([self.kept, self.channels - self.kept], 1)
        return a, b

    def _join(self, a, b):
        return torch.cat([b, a] if self.swap else [a, b], 1)

    def _affine(self, a):
        raw, t = self.network(a).chunk(2, 1)
        return self.scale * torch.tanh(raw), t

    def encode(self, x):
        a, b = self._split(x)
        s, t = self._affine(a)
        return self._join(a, b * s.exp() + t), s.flatten(1).sum(1)

    def decode(self, z):
        a, b = self._split(z)
        s, t = self._affine(a)
        return self._join(a, (b - t) * (-s).exp()), -s.flatten(1).sum(1)


class FactorOut(Flow):
    """Half the channels go on through `rest`, the other half is noise already; z is (B, D, 1, 1)."""

    def __init__(self, rest: Flow, channels: int) -> None:
        super().__init__()
        self.rest, self.channels = rest, channels

    def encode(self, x):
        on, out = x.chunk(2, 1)
        z, log_det = self.rest(on)
        return torch.cat([z, out], 1), log_det
