"""Invertible layers with their log-determinants: masked affine couplings, squeeze, factor-out.

All but one are Dinh et al. 2017 (arXiv:1605.08803, sec. 3); the elementwise layer takes its first values from
data, as activation normalisation does (Kingma and Dhariwal 2018, arXiv:1807.03039, sec. 3.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Flow(nn.Module, ABC):
    """An invertible map, called as flow(x), or flow(z, reverse=True)."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From data towards noise: z and log|det dz/dx| (B,)."""

    @abstractmethod
    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of `encode`: x and log|det dx/dz| (B,)."""

    def forward(self, x: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """`encode(x)`, or `decode(x)` if reverse."""
        return self.decode(x) if reverse else self.encode(x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Set from a first batch of data what is set from data; returns its z."""
        return self.encode(x)[0]


class Chain(Flow):
    """Flows one after another, given in the order of `encode`."""

    def __init__(self, *flows: Flow) -> None:
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Through the first, then the second, ..."""
        total = x.new_zeros(len(x))
        for flow in self.flows:
            x, log_det = flow(x)
            total = total + log_det
        return x, total

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Back through the last, then the last but one, ..."""
        total = z.new_zeros(len(z))
        for flow in reversed(self.flows):
            z, log_det = flow(z, reverse=True)
            total = total + log_det
        return z, total

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Each flow from what the one before makes of the batch."""
        for flow in self.flows:
            assert isinstance(flow, Flow)
            x = flow.initialise(x)
        return x


class Squeeze(Flow):
    """(B, C, H, W) to (B, 4C, H/2, W/2): each 2x2 block becomes four channels (Fig. 3); H and W are even."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A permutation: the log-determinant is 0."""
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The permutation back."""
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))


class Elementwise(Flow):
    """z = (x - mean) / scale with a learned mean and scale for every dimension of (B, *shape)."""

    def __init__(self, *shape: int, floor: float = 0.0) -> None:
        """floor: the least scale it is given by data, as a share of the standard deviation of all values together.

        A pixel without ink in the first batch, but for the noise of dequantisation, else lies a hundred scales off
        where it is inked at last.
        """
        super().__init__()
        self.floor = floor
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Standardise."""
        return (x - self.mean) * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Give mean and scale back."""
        return z * self.log_scale.exp() + self.mean, self.log_scale.sum().expand(len(z))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """Mean and standard deviation of the batch; a constant dimension, or a batch of one, keeps scale 1."""
        std = x.std(0, unbiased=False).clamp(min=self.floor * float(x.std(unbiased=False)))
        self.mean.copy_(x.mean(0))
        self.log_scale.copy_(torch.where(std > 1e-6, std, 1.0).log())
        return self.encode(x)[0]


class AffineCoupling(Flow):
    """z = b x + (1 - b) (x exp(s(b x)) + t(b x)) with a binary mask b (eq. 9), s = scale * tanh(raw)."""

    mask: Tensor

    def __init__(self, network: nn.Module, mask: Tensor) -> None:
        """The network maps b x (B, C, H, W) to raw and t, (B, 2C, H, W); mask is (C, H, W), 1 where x is kept."""
        super().__init__()
        self.network = network
        self.register_buffer("mask", mask, persistent=False)
        self.scale = nn.Parameter(torch.ones(mask.shape[0], 1, 1))

    def _log_scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(x * self.mask).chunk(2, 1)
        free = 1 - self.mask
        return self.scale * torch.tanh(raw) * free, shift * free

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift what the mask leaves free, by what it keeps."""
        log_scale, shift = self._log_scale_and_shift(x)
        return x * log_scale.exp() + shift, log_scale.flatten(1).sum(1)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The kept part of z is that of x, so scale and shift are known again (eq. 8)."""
        log_scale, shift = self._log_scale_and_shift(z)
        return (z - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


class SplitCoupling(Flow):
    """`AffineCoupling` with a channel-wise mask, whose network is given and gives no more than is used.

    (B, C, H, W), C >= 2: one part of the channels stays, the other becomes x exp(s) + t, with s = scale * tanh(raw). Of
    an odd number the larger part stays.
    """

    def __init__(self, network: nn.Module, channels: int, keep_first: bool = True) -> None:
        """The network maps (B, kept, H, W), kept = C - C // 2, to raw and t, (B, 2 (C // 2), H, W)."""
        super().__init__()
        self.network = network
        self.keep_first = keep_first
        free = channels // 2
        self.sizes = [channels - free, free] if keep_first else [free, channels - free]
        self.scale = nn.Parameter(torch.ones(free, 1, 1))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = torch.split(x, self.sizes, 1)
        return (first, second) if self.keep_first else (second, first)

    def _join(self, kept: Tensor, free: Tensor) -> Tensor:
        return torch.cat([kept, free] if self.keep_first else [free, kept], 1)

    def _log_scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(kept).chunk(2, 1)
        return self.scale * torch.tanh(raw), shift

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift one part by the other."""
        kept, free = self._split(x)
        log_scale, shift = self._log_scale_and_shift(kept)
        return self._join(kept, free * log_scale.exp() + shift), log_scale.flatten(1).sum(1)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The kept part is that of x, so scale and shift are known again."""
        kept, free = self._split(z)
        log_scale, shift = self._log_scale_and_shift(kept)
        return self._join(kept, (free - shift) * (-log_scale).exp()), -log_scale.flatten(1).sum(1)


class FactorOut(Flow):
    """The first half of the channels goes on through `rest`, the second is noise already (eq. 14-16).

    (B, C, H, W), C even, to flat (B, CHW), given that `rest` maps (B, C/2, H, W) to flat (B, CHW/2).
    """

    def __init__(self, rest: Flow, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.rest = rest
        self.factored = (channels // 2, height, width)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Only what goes on is changed."""
        onward, out = x.chunk(2, 1)
        z, log_det = self.rest(onward)
        return torch.cat([z, out.flatten(1)], 1), log_det

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Bring `rest`'s half back, and put the factored one beside it."""
        inner, out = z.chunk(2, 1)
        onward, log_det = self.rest(inner, reverse=True)
        return torch.cat([onward, out.reshape(-1, *self.factored)], 1), log_det

    @torch.no_grad()
    def initialise(self, x: Tensor) -> Tensor:
        """What goes on initialises `rest`."""
        onward, out = x.chunk(2, 1)
        return torch.cat([self.rest.initialise(onward), out.flatten(1)], 1)


class Flatten(Flow):
    """(B, *shape) to flat (B, D)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.unflat = shape

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A relabelling: the log-determinant is 0."""
        return x.flatten(1), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The shape back."""
        return z.reshape(-1, *self.unflat), z.new_zeros(len(z))


def checkerboard(channels: int, height: int, width: int, parity: int) -> Tensor:
    """Mask (C, H, W), 1 where row + column has this parity (Fig. 3, left)."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    return ((rows + columns) % 2 == parity).float().repeat(channels, 1, 1)
