"""Networks that grow by doublings of the image size, and the schedule of their growth (Karras et al. 2018).

arXiv:1710.10196: section 2 and figure 2 for the growth, table 2 for the layers. While a stage is faded in, what the
smaller network makes (or takes) is mixed with it, so that nothing jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.nets.equalised import GAIN, EqualisedConv, EqualisedLinear, MinibatchDeviation, PixelNorm

SMALLEST = 4
"""A size is halved while a side is above this, and both are even."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Growth:
    """Where the growth of the networks stands."""

    stage: int  # the largest size in use, 0 the smallest
    alpha: float = 1.0  # the stage's share of the image; below 1 it is being faded in
    settled: float = 0.0  # of the time that the stage learns by itself, the part that has passed


def growth_at(fraction: float, stages: int, grown: float) -> Growth:
    """The growth when `fraction` of the budget is done; from `grown` on the networks have their full size.

    Until then the budget has equal parts in turn: a stage learns by itself, the next is faded in, and so on.
    """
    parts = 2 * (stages - 1)
    if fraction >= grown or not parts:
        begun = grown if parts else 0.0
        return Growth(stages - 1, settled=(fraction - begun) / (1 - begun))
    part, passed = divmod(fraction / grown * parts, 1)
    stage, fading = (int(part) + 1) // 2, int(part) % 2 == 1
    return Growth(stage, alpha=passed) if fading else Growth(stage, settled=passed)


def resolutions(size: Size) -> tuple[Size, ...]:
    """From the smallest size to this one, each the double of the one before: 28 gives 7, 14, 28; 3 only itself."""
    found = [size]
    while max(found[0]) > SMALLEST and found[0][0] % 2 == found[0][1] % 2 == 0:
        found.insert(0, (found[0][0] // 2, found[0][1] // 2))
    return tuple(found)


def halved(x: Tensor) -> Tensor:
    """Means of 2x2 blocks."""
    return F.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """Each pixel as a block of 2x2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def at_growth(images: Tensor, growth: Growth, stages: int) -> Tensor:
    """Images of the full size as the discriminator sees them at this growth: halved, and faded alike (appendix A)."""
    for _ in range(stages - 1 - growth.stage):
        images = halved(images)
    return images if growth.alpha == 1 else torch.lerp(doubled(halved(images)), images, growth.alpha)


class GrowingGenerator(nn.Module):
    """z to images: a dense layer and a convolution at the smallest size, then two convolutions at each doubling."""

    def __init__(self, latent: int, sizes: tuple[Size, ...], widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.first = (widths[0], *sizes[0])
        self.dense = nn.Sequential(PixelNorm(), EqualisedLinear(latent, widths[0] * sizes[0][0] * sizes[0][1]))
        self.start = nn.Sequential(*_activated(), *_convolution(widths[0], widths[0], True))
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolution(into, out, True), *_convolution(out, out, True))
            for into, out in pairwise(widths)
        )
        self.to_image = nn.ModuleList(EqualisedConv(width, channels, 1, gain=1.0) for width in widths)

    def forward(self, z: Tensor, growth: Growth | None = None) -> Tensor:
        """z (B, latent) to images (B, C, *sizes[stage]), about [-1, 1] but without bounds; None: full-grown."""
        growth = growth or Growth(len(self.blocks))
        h = self.start(self.dense(z).unflatten(1, self.first))
        before = h
        for block in list(self.blocks)[: growth.stage]:
            before, h = h, block(doubled(h))
        images: Tensor = self.to_image[growth.stage](h)
        if growth.alpha == 1:
            return images
        return torch.lerp(doubled(self.to_image[growth.stage - 1](before)), images, growth.alpha)


class GrowingDiscriminator(nn.Module):
    """Images to scores: the generator's mirror, with the minibatch's deviation at the smallest size."""

    def __init__(self, sizes: tuple[Size, ...], widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.from_image = nn.ModuleList(
            nn.Sequential(EqualisedConv(channels, width, 1), nn.LeakyReLU(0.2)) for width in widths
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolution(into, into, False), *_convolution(into, out, False))
            for out, into in pairwise(widths)
        )
        self.end = nn.Sequential(
            MinibatchDeviation(),
            *_convolution(widths[0] + 1, widths[0], False),
            nn.Flatten(),
            EqualisedLinear(widths[0] * sizes[0][0] * sizes[0][1], widths[0]),
            nn.LeakyReLU(0.2),
            EqualisedLinear(widths[0], 1, gain=1.0),
            nn.Flatten(0),
        )

    def forward(self, images: Tensor, growth: Growth | None = None) -> Tensor:
        """Images (B, C, *sizes[stage]) to scores (B,), high for real ones; None: full-grown."""
        growth = growth or Growth(len(self.blocks))
        h = self.from_image[growth.stage](images)
        for stage in range(growth.stage, 0, -1):
            h = halved(self.blocks[stage - 1](h))
            if stage == growth.stage and growth.alpha < 1:
                h = torch.lerp(self.from_image[stage - 1](halved(images)), h, growth.alpha)
        scores: Tensor = self.end(h)
        return scores


def _activated() -> tuple[nn.Module, ...]:
    return nn.LeakyReLU(0.2), PixelNorm()


def _convolution(into: int, out: int, normed: bool) -> tuple[nn.Module, ...]:
    return EqualisedConv(into, out, gain=GAIN), *(_activated() if normed else (nn.LeakyReLU(0.2),))
