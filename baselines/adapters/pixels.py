"""What other libraries' models answer with, as the suite's images: uint8 levels 0 .. levels - 1."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from baselines.data.likelihood import from_signed
from baselines.errors import DivergedError, UserError
from baselines.types import ImageShape

Pixels = Literal["bytes", "levels", "unit", "signed"]
"""uint8 0 .. 255 (torch-fidelity's), uint8 levels of the data set, real numbers in [0, 1], or in [-1, 1]."""


def to_images(answer: object, n: int, shape: ImageShape, pixels: Pixels, who: str) -> Tensor:
    """A model's answer, (n, C, H, W) or (n, C * H * W), as uint8 (n, C, H, W) with levels 0 .. levels - 1.

    Real numbers go to the nearest level; a little outside the range they are clamped.

    Raises:
        UserError: if it has another type, shape or range.
        DivergedError: if it holds NaN or infinity.
    """
    if not isinstance(answer, Tensor):
        raise UserError(f"{who}: expected a tensor of {n} images, got {type(answer).__name__}")
    if answer.shape not in ((n, *shape.chw), (n, shape.dims)):
        raise UserError(
            f"{who}: expected images {(n, *shape.chw)}, as the data set has them, got {tuple(answer.shape)}"
        )
    images = answer.detach().reshape(n, *shape.chw)
    if pixels in ("bytes", "levels"):
        return _whole(images, shape, pixels, who)
    if not images.is_floating_point():
        raise UserError(f"{who}: expected real numbers of pixels {pixels!r}, got {images.dtype}; uint8 is 'bytes'")
    if not bool(torch.isfinite(images).all()):
        raise DivergedError(f"{who}: NaN or infinity among the pixels that it drew")
    low = 0 if pixels == "unit" else -1
    outside = float(((images < low) | (images > 1)).float().mean())
    if outside > 0.5:
        raise UserError(
            f"{who}: expected pixels in [{low}, 1] (pixels = {pixels!r}), got {outside:.0%} of them outside, from "
            f"{float(images.min()):.3g} to {float(images.max()):.3g}; name what they are by pixels = bytes, levels, "
            "unit or signed"
        )
    return from_signed(images * 2 - 1 if pixels == "unit" else images, shape.levels)


def of_bytes(images: Tensor, levels: int) -> Tensor:
    """uint8 0 .. 255 to the nearest of 0 .. levels - 1."""
    if levels == 256:
        return images
    return (images.float() * ((levels - 1) / 255)).round().to(torch.uint8)


def _whole(images: Tensor, shape: ImageShape, pixels: Pixels, who: str) -> Tensor:
    if images.dtype != torch.uint8:
        raise UserError(
            f"{who}: expected uint8 (pixels = {pixels!r}), got {images.dtype}; real numbers are 'unit' or 'signed'"
        )
    if pixels == "bytes":
        return of_bytes(images, shape.levels)
    if int(images.max()) >= shape.levels:
        raise UserError(f"{who}: expected levels 0 .. {shape.levels - 1}, got {int(images.max())}; are they 'bytes'?")
    return images
