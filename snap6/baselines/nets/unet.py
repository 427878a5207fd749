"""A small time-conditioned U-Net that is quick on a CPU: residual blocks with group norm, FiLM and SiLU.

After Ho et al. 2020 (arXiv:2006.11239), app. B: sinusoidal time embedding, residual blocks, skips between equal
resolutions, attention at the lowest. Scale-shift normalisation is that of Dhariwal and Nichol 2021
(arXiv:2105.05233). Levels change resolution by 2x2 strided convolutions and nearest-neighbour upsampling.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_RANGE = 1000.0
"""Times are real numbers in [0, TIME_RANGE): the embedding's wavelengths suit DDPM's 1000 timesteps."""


class UNet(nn.Module):
    """Maps an image and a time to an image of the same size.

    Odd sizes are padded to a multiple of the coarsest cell and cropped again.

    Args:
        channels_in, channels_out: of the images.
        widths: channels of each level; the first has the image's resolution, each further one half of it.
        blocks: residual blocks per level, on the way down and again on the way up; the lowest level has twice
            as many in a row.
        attention: self-attention in the middle of the lowest level.
        dropout: probability, inside the residual blocks.
        latent: size of a vector z that acts where the time does (Xiao et al. 2021, arXiv:2112.07804, app. C); 0: none.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        widths: tuple[int, ...],
        blocks: int = 1,
        attention: bool = False,
        dropout: float = 0.0,
        latent: int = 0,
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(widths) - 1)
        time_width = 4 * widths[0]
        self.time = _TimeEmbedding(2 * widths[0], time_width)
        if latent:
            layers = (nn.Linear(latent, time_width), nn.SiLU(), nn.Linear(time_width, time_width))
            self.mapping = nn.Sequential(*layers, nn.SiLU())
        self.stem = nn.Conv2d(channels_in, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in itertools.pairwise(widths):
            self.down.append(_Stage(fine, blocks, time_width, dropout))
            self.up.append(_Stage(fine, blocks, time_width, dropout))
            self.shrink.append(nn.Conv2d(fine, coarse, 2, stride=2))
            self.grow.append(nn.Conv2d(coarse, fine, 1))
        self.middle = _Stage(widths[-1], 2 * blocks, time_width, dropout, attention)
        self.norm = nn.GroupNorm(1, widths[0])
        self.head = _zeroed(nn.Conv2d(widths[0], channels_out, 1))
        self.gain = nn.Linear(time_width, 2)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """x (B, channels_in, H, W) and times t (B,), or (1,) for one time that all share, to (B, channels_out, H, W).

        A shared time costs less: its embedding is computed once and folded into the normalisations. z: (B, latent).
        """
        height, width = x.shape[2:]
        pad = (-width % self.factor, -height % self.factor)
        if any(pad):
            x = F.pad(x, (0, pad[0], 0, pad[1]))
        time = self.time(t) if z is None else self.time(t) + self.mapping(z)
        h = self.stem(x).contiguous(memory_format=torch.channels_last)
        skips = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            h = stage(h, time)
            skips.append(h)
            h = shrink(h)
        h = self.middle(h, time)
        for stage, grow in reversed(list(zip(self.up, self.grow, strict=True))):
            h = stage(F.interpolate(grow(h), scale_factor=2.0, mode="nearest").add_(skips.pop()), time)
        out: Tensor = self.head(_silu(self.norm(h)))
        g = self.gain(time)[:, :, None, None]
        out = torch.addcmul(out * (1 + g[:, 1:]), x, g[:, :1])
        return out[:, :, :height, :width].contiguous()


class _Stage(nn.Module):
    """Residual blocks in a row at one resolution, attention (if any) after the first half of them."""

    def __init__(self, width: int, blocks: int, time_width: int, dropout: float, attention: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_ResidualBlock(width, time_width, dropout) for _ in range(blocks))
        self.attention = _Attention(width) if attention else None

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            if self.attention is not None and i == len(self.blocks) // 2:
                h = self.attention(h)
            h = block(h, time)
        return h


class _ResidualBlock(nn.Module):
    """h + conv(silu(FiLM(norm(conv(silu(norm(h))))))), the identity at first."""

    def __init__(self, width: int, time_width: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = _zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.film = nn.Linear(time_width, 2 * width)
        self.dropout = dropout

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        inner = self.conv1(_silu(self.norm1(h)))
        scale, shift = self.film(time).chunk(2, 1)
        norm = self.norm2
        if len(time) == 1:
            weight = norm.weight * (1 + scale[0])
            inner = F.group_norm(inner, norm.num_groups, weight, norm.bias * (1 + scale[0]) + shift[0], norm.eps)
        else:
            inner = torch.addcmul(shift[:, :, None, None], norm(inner), 1 + scale[:, :, None, None])
        inner = _silu(inner)
        if self.dropout > 0:
            inner = F.dropout(inner, self.dropout, self.training)
        out: Tensor = self.conv2(inner).add_(h)
        return out


class _Attention(nn.Module):
    """Self-attention over all positions of one resolution, the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.query_key_value = nn.Conv2d(width, 3 * width, 1)
        self.out = _zeroed(nn.Conv2d(width, width, 1))

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.query_key_value(self.norm(h)).flatten(2).transpose(1, 2).unsqueeze(1)
        query, key, value = tokens.chunk(3, -1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = h + self.out(mixed.squeeze(1).transpose(1, 2).reshape(h.shape))
        return out


class _TimeEmbedding(nn.Module):
    """Sinusoids of geometric wavelengths 2 pi .. 2 pi 10000, then two layers (Vaswani et al. 2017; Ho et al. 2020)."""

    def __init__(self, sinusoids: int, width: int) -> None:
        super().__init__()
        half = max(sinusoids // 2, 1)
        frequencies = torch.exp(torch.arange(half) * (-math.log(10_000) / half))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * half, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        assert isinstance(self.frequencies, Tensor)
        angles = t[:, None] * self.frequencies
        out: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], 1))
        return out


def _silu(x: Tensor) -> Tensor:
    """x must be a tensor that nobody else holds; without gradients its memory is used again."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """Start at zero, so that a residual branch begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
