"""Digits made larger: the grounds on which captions, domains, outlines and puzzles are generated.

`digits` (8x8, 17 levels) becomes 16x16 by bilinear interpolation, since at 8x8 strokes are a pixel wide and one erosion
leaves a tenth of the ink; MNIST (28x28) is framed by two pixels of background to 32x32. Both then have 256 levels. Of
MNIST's training images the first 20,000 in stratified hash order are taken, of the others all.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.data.dataset import Dataset, Split
from baselines.data.splitting import stratified_order
from baselines.types import ImageShape

MOST = {"train": 20_000, "val": 2_000, "test": 4_000}
"""Images of a split, chosen in stratified hash order where there are more."""


def enlarged(images: Tensor, levels: int) -> Tensor:
    """uint8 (N, C, H, W) of `levels` levels to uint8 (N, C, 2H, 2W) of 256 levels, or framed where they are large.

    Images of less than 16 pixels are interpolated to twice their sides (bilinear, half-pixel centres); larger ones get
    the least frame of background (level 0) that makes both sides a power of two.
    """
    height, width = images.shape[2:]
    if min(height, width) < 16:
        scaled = images.double() * (255 / (levels - 1))
        doubled = F.interpolate(scaled, size=(2 * height, 2 * width), mode="bilinear", align_corners=False)
        return doubled.round().to(torch.uint8)
    if levels != 256:
        images = (images.double() * (255 / (levels - 1))).round().to(torch.uint8)
    down, right = _power(height) - height, _power(width) - width
    return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))


def of(base: Dataset) -> Dataset:
    """`digits-large` or `mnist-large`: the same images, enlarged, with their labels."""
    train, val, test = (_split(getattr(base, name), MOST[name], base.shape.levels) for name in MOST)
    channels, height, width = train.images.shape[1:]
    return dataclasses.replace(
        base,
        name=f"{base.name}-large",
        shape=ImageShape(channels, height, width, 256),
        train=train,
        val=val,
        test=test,
        note=f"{base.name} enlarged to {height}x{width}, 256 levels; test {len(test)}, val {len(val)}, "
        f"train {len(train)}; {base.note}",
    )


def _split(split: Split, most: int, levels: int) -> Split:
    assert split.labels is not None
    index = torch.arange(len(split))
    if len(split) > most:
        index = torch.from_numpy(stratified_order(split.labels.numpy())[:most]).sort().values
    return Split(enlarged(split.images[index], levels), split.labels[index])


def _power(size: int) -> int:
    """The least power of two that is not below."""
    return 1 << (size - 1).bit_length()
