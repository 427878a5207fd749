"""Masked convolutions for raster-scan autoregression (van den Oord et al. 2016, arXiv:1601.06759, sec. 3.4).

Pixel order: rows from the top, columns from the left, colours R, G, B within a pixel. Feature channels form
one group per colour; a feature of group g may see every colour of earlier pixels, and at its own pixel the
groups before g (mask A) or up to g (mask B).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from baselines.nets.raster import RasterConv2d

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


class MaskedConv2d(RasterConv2d):
    """A convolution that sees earlier pixels and earlier colours only; its output has its input's size."""

    def __init__(
        self,
        into: int,
        out: int,
        kernel: int,
        kind: MaskKind,
        colours: int,
        positions: tuple[int, int] | None = None,
    ) -> None:
        """An odd kernel around the pixel, of which the rows above and half of its own row are left.

        Raises:
            ValueError: if the kernel is even or the channels do not divide into colour groups.
        """
        mask = causal_mask(kind, into, out, kernel, colours)
        self.reach = kernel // 2  # columns to the right, in the rows above
        super().__init__(into, out, (-self.reach, 0), (-self.reach, self.reach), mask, positions=positions)
