"""Strided convolutions that halve and double any image size exactly (Dumoulin and Visin 2016, arXiv:1603.07285).

A size s halves to ceil(s / 2) and doubles back to s: an even side takes kernel 4, an odd one kernel 3, both with
stride 2 and padding 1. So 28 goes 28, 14, 7, 4 and returns by the same road, with nothing cropped. A side of 2 takes
kernel 2 without padding: of kernel 4 the outer ring would only ever meet zeros.
"""

from __future__ import annotations

from torch import nn

Size = tuple[int, int]
"""(height, width) of a feature map."""


def halvings(size: Size, smallest: int, fewest: int = 1) -> tuple[Size, ...]:
    """The sizes from `size` down, halved while a side is above `smallest`, or fewer than `fewest` steps were made.

    No size repeats: a 1x1 map is the end, whatever `fewest` asks.
    """
    sizes = [size]
    while max(sizes[-1]) > smallest or len(sizes) <= fewest:
        height, width = sizes[-1]
        if height == width == 1:
            break
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return tuple(sizes)


def halve(channels_in: int, channels_out: int, size: Size, bias: bool = True) -> nn.Conv2d:
    """Convolution of stride 2: (B, channels_in, *size) to (B, channels_out, ceil(size / 2))."""
    kernel, padding = _window(size)
    return nn.Conv2d(channels_in, channels_out, kernel, stride=2, padding=padding, bias=bias)


def double(channels_in: int, channels_out: int, size: Size, bias: bool = True) -> nn.ConvTranspose2d:
    """Transposed convolution of stride 2: (B, channels_in, ceil(size / 2)) to (B, channels_out, *size)."""
    kernel, padding = _window(size)
    return nn.ConvTranspose2d(channels_in, channels_out, kernel, stride=2, padding=padding, bias=bias)


def _window(size: Size) -> tuple[Size, Size]:
    """Kernel and padding for the larger of the two sizes."""
    kernel = tuple(2 if side == 2 else 4 if side % 2 == 0 else 3 for side in size)
    padding = tuple(0 if side == 2 else 1 for side in size)
    return (kernel[0], kernel[1]), (padding[0], padding[1])
