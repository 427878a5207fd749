"""The images while they are drawn, several pixels at a time: what is known of them, and their uniform numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.autoregression import Known, invert_cdf
from baselines.nets.raster import Grid, Region


class Canvas:
    """Images of a model whose order is rows, columns, then colours, addressed by regions of pixels."""

    def __init__(self, uniform: Tensor, known: Known | None) -> None:
        """uniform: (B, C, H, W), one number for each dimension to be drawn."""
        _, channels, height, width = uniform.shape
        self._uniform = Grid(uniform.permute(0, 2, 3, 1))
        self._x = Grid(torch.zeros_like(self._uniform.map, dtype=torch.uint8))
        self._known: tuple[Grid, Grid] | None = None
        if known is not None:
            rank = torch.arange(height * width * channels, device=uniform.device).view(1, height, width, channels)
            images = known.images.to(uniform.device).permute(0, 2, 3, 1)
            self._known = Grid(images), Grid((rank < known.dims).expand_as(images))

    @property
    def images(self) -> Tensor:
        """uint8 (B, C, H, W)."""
        return self._x.map.permute(0, 3, 1, 2).contiguous()

    def pixels(self, region: Region) -> Pixels:
        """Those of a region, to be drawn."""
        known = None if self._known is None else (self._known[0].read(region), self._known[1].read(region))
        return Pixels(self._uniform.read(region), known)

    def keep(self, region: Region, pixels: Pixels) -> None:
        """Put drawn pixels in their place."""
        self._x.write(region, pixels.values)


class Pixels:
    """The pixels of a region for all images, (B * pixels, C); 0 where a colour is still to be drawn."""

    def __init__(self, uniform: Tensor, known: tuple[Tensor, Tensor] | None) -> None:
        self.uniform = uniform
        self.known = known
        self.values = torch.zeros(uniform.shape, dtype=torch.uint8, device=uniform.device)

    def draw(self, colour: int, log_p: Tensor) -> None:
        """Give a colour its levels by log P over them, (B * pixels, levels), unless they are known."""
        self.put(colour, invert_cdf(log_p, self.uniform[:, colour]))

    def put(self, colour: int, drawn: Tensor) -> None:
        """Give a colour the levels uint8 (B * pixels,), unless they are known."""
        if self.known is not None:
            images, fixed = self.known
            drawn = torch.where(fixed[:, colour], images[:, colour], drawn)
        self.values[:, colour] = drawn
