"""Masked convolutions for raster-scan autoregression (van den Oord et al. 2016, arXiv:1601.06759, sec. 3.4).

Pixel order: rows from the top, columns from the left, colours R, G, B within a pixel. Feature channels form
one group per colour; a feature of group g may see every colour of earlier pixels, and at its own pixel the
groups before g (mask A) or up to g (mask B).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MaskKind = Literal["A", "B"]


def colour_groups(channels: int, colours: int) -> Tensor:
    """The colour each of `channels` features belongs to, (channels,), in contiguous blocks of equal size.

    Raises:
        ValueError: if the channels do not divide into equal blocks.
    """
    if channels % colours:
        raise ValueError(f"expected a number of channels divisible by {colours} colours, got {channels}")
    return torch.arange(channels) // (channels // colours)


def causal_mask(kind: MaskKind, into: int, out: int, kernel: int, colours: int) -> Tensor:
    """0/1 mask (out, into, kernel // 2 + 1, kernel) over the upper rows of a kernel, the centre's row last.

    The rows below the centre are all masked; they are left out, which changes nothing but the work.
    """
    if kernel % 2 == 0:
        raise ValueError(f"expected an odd kernel, got {kernel}")
    half = kernel // 2
    mask = torch.ones(out, into, half + 1, kernel)
    mask[:, :, half, half + 1 :] = 0
    before, after = colour_groups(into, colours)[None, :], colour_groups(out, colours)[:, None]
    mask[:, :, half, half] = (before < after if kind == "A" else before <= after).float()
    return mask


class RasterCache:
    """What each masked convolution has been fed so far, so that a new pixel costs one pixel's work.

    Set `row` and `column`, then call the network on that pixel alone. A pixel may be fed again, for its next
    colour; later pixels see what was fed last, so the first layer must be fed the pixel's final value.
    """

    def __init__(self, height: int, width: int) -> None:
        """An empty cache for images of height x width pixels."""
        self.height, self.width = height, width
        self.row = self.column = 0
        self._fed: dict[MaskedConv2d, Tensor] = {}

    def feed(self, layer: MaskedConv2d, x: Tensor) -> None:
        """Store x (B, channels, 1, 1) as the layer's input at (row, column)."""
        reach = layer.reach
        if layer not in self._fed:
            self._fed[layer] = x.new_zeros(*x.shape[:2], self.height + reach, self.width + 2 * reach)
        self._fed[layer][:, :, self.row + reach, self.column + reach] = x[:, :, 0, 0]

    def patch(self, layer: MaskedConv2d) -> Tensor:
        """What the layer's kernel covers at (row, column), (B, channels, reach + 1, 2 reach + 1)."""
        reach = layer.reach
        return self._fed[layer][:, :, self.row : self.row + reach + 1, self.column : self.column + 2 * reach + 1]


class MaskedConv2d(nn.Module):
    """A convolution that sees earlier pixels and earlier colours only; its output has its input's size."""

    mask: Tensor

    def __init__(self, into: int, out: int, kernel: int, kind: MaskKind, colours: int) -> None:
        """Weights as `nn.Conv2d` initialises them, with the fan-in that the mask leaves.

        Raises:
            ValueError: if the kernel is even or the channels do not divide into colour groups.
        """
        super().__init__()
        self.reach = kernel // 2
        mask = causal_mask(kind, into, out, kernel, colours)
        self.register_buffer("mask", mask, persistent=False)
        fan_in = mask.flatten(1).sum(1).clamp(min=1)
        bound = fan_in.rsqrt().view(-1, 1, 1, 1)
        self.weight = nn.Parameter((2 * torch.rand(mask.shape) - 1) * bound * mask)
        self.bias = nn.Parameter((2 * torch.rand(out) - 1) * bound.flatten())

    def forward(self, x: Tensor, cache: RasterCache | None = None) -> Tensor:
        """(B, into, H, W) to (B, out, H, W); with a cache, one pixel (B, into, 1, 1) to (B, out, 1, 1)."""
        if self.reach and cache is not None:
            cache.feed(self, x)
            x = cache.patch(self)
        elif self.reach:
            x = F.pad(x, (self.reach, self.reach, self.reach, 0))
        return F.conv2d(x, self.weight * self.mask, self.bias)


class PositionBias(nn.Module):
    """Adds a learned number for every feature and place, 0 at first: convolutions alone see only the borders."""

    def __init__(self, features: int, height: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features, height, width))

    def forward(self, h: Tensor, cache: RasterCache | None = None) -> Tensor:
        """(B, features, H, W) to the same; with a cache, its pixel (B, features, 1, 1)."""
        if cache is None:
            return h + self.bias
        return h + self.bias[:, cache.row, cache.column, None, None]
