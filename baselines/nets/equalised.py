"""Layers of Karras et al. 2018 (arXiv:1710.10196, section 4): scales at run time, pixel norm, minibatch deviation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAIN = math.sqrt(2)
"""He et al. 2015 (arXiv:1502.01852): keeps the size of signals through rectifiers."""


class EqualisedLinear(nn.Module):
    """y = c W x + b with c = gain / sqrt(fan-in) applied at run time, W from N(0, 1), b from 0 (section 4.1).

    Adam's steps do not hang on the scale of a gradient, so weights of one scale learn at one speed in all layers.
    """

    def __init__(self, into: int, out: int, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, into))
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = gain / math.sqrt(into)

    def forward(self, x: Tensor) -> Tensor:
        """(B, into) to (B, out)."""
        return F.linear(x, self.weight * self.scale, self.bias)


class EqualisedConv(nn.Module):
    """The same of a convolution of an odd kernel, which keeps the size."""

    def __init__(self, into: int, out: int, kernel: int = 3, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, into, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out))
        self.scale = gain / math.sqrt(into * kernel**2)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, into, H, W) to (B, out, H, W)."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class PixelNorm(nn.Module):
    """b = a / sqrt(mean of a^2 over the channels + 1e-8), at each place by itself (section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same."""
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class MinibatchDeviation(nn.Module):
    """One more channel with one number: the standard deviation over the batch, averaged over all features (section 3).

    A batch whose images are all alike shows it there, so a generator that lost its variety is found out.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C + 1, H, W)."""
        deviation = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
        return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)
