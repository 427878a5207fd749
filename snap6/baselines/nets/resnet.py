"""Residual convolutional networks between images and vectors (He et al. 2016, arXiv:1603.05027), free of batch norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.nets.conv import Size, double, halve, halvings


class Residual(nn.Module):
    """x + conv(act(dropout(conv(act(x))))), 3x3 convolutions; the last begins at zero, so the block as identity."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.SiLU()
        self.drop = nn.Dropout(dropout)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        inner: Tensor = self.last(self.drop(self.act(self.first(self.act(x)))))
        return x + inner


def widths(sizes: tuple[Size, ...], width: int, widest: int) -> list[int]:
    """Channels at each size: `width` next to the image, doubled with every halving, up to `widest`."""
    return [min(width * 2**stage, widest) for stage in range(len(sizes))]


def image_to_vector(
    size: Size, channels_in: int, out: int, width: int, widest: int, blocks: int, dropout: float
) -> nn.Sequential:
    """Images (B, channels_in, *size) to vectors (B, out): residual blocks and halvings down to about 4x4."""
    sizes = halvings(size, smallest=4)
    channels = widths(sizes, width, widest)
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels[0], 3, padding=1)]
    for stage in range(len(sizes) - 1):
        layers += [Residual(channels[stage], dropout) for _ in range(blocks)]
        layers += [nn.SiLU(), halve(channels[stage], channels[stage + 1], sizes[stage])]
    layers += [Residual(channels[-1], dropout) for _ in range(blocks)]
    flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
    return nn.Sequential(*layers, nn.SiLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(flat, out))


def vector_to_image(
    size: Size, latent: int, channels_out: int, width: int, widest: int, blocks: int, dropout: float
) -> nn.Sequential:
    """Vectors (B, latent) to maps (B, channels_out, *size): the way back of `image_to_vector`."""
    sizes = halvings(size, smallest=4)
    channels = widths(sizes, width, widest)
    flat = (channels[-1], *sizes[-1])
    layers: list[nn.Module] = [nn.Linear(latent, torch.Size(flat).numel()), nn.Unflatten(1, flat)]
    for stage in range(len(sizes) - 2, -1, -1):
        layers += [Residual(channels[stage + 1], dropout) for _ in range(blocks)]
        layers += [nn.SiLU(), double(channels[stage + 1], channels[stage], sizes[stage])]
    layers += [Residual(channels[0], dropout) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(channels[0], channels_out, 3, padding=1))
