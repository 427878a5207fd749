"""Pictures of what an autoregressive model does with the part of an image that it is given.

Completions of the lower half as in van den Oord et al. 2016 (arXiv:1601.06759, fig. 9); and the same uniform numbers
with another first pixel, which shows how far one value is felt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.contract import ImageShape, Noise, Strip

ROWS = 5
DRAWN = 6  # completions of each image

Complete = Callable[[Tensor, Tensor, int], Tensor]
"""Uniform numbers (n, C, H, W), images uint8 (n, C, H, W) and how many of their dimensions are known, to images."""


def completions(complete: Complete, order: Tensor, shape: ImageShape, real: Tensor, noise: Noise) -> Strip:
    """Real images whose first half in the model's order is given, and what the model draws to it."""
    real = real[:ROWS]
    known = known_half(shape)
    given = torch.zeros_like(real).flatten(1)
    given[:, order[:known]] = real.flatten(1)[:, order[:known]]
    columns = [real, given.view_as(real)]
    for k in range(DRAWN):
        uniform = noise.fork(f"completion {k}").uniform("pixels", len(real), shape.chw)
        columns.append(complete(uniform, real, known))
    labels = ("real", "given", *(f"drawn {k + 1}" for k in range(DRAWN)))
    caption = (
        f"The first {known} of {shape.dims} dimensions, in the order in which the model draws them, are those of a "
        "test image; the others are drawn given them, exactly as the model's conditionals say. Where completions "
        "differ, the model holds more than one possible."
    )
    images = torch.stack([column.cpu() for column in columns], 1)
    return Strip("Completions", caption, ("",) * len(real), labels, images)


def first_pixel(complete: Complete, order: Tensor, shape: ImageShape, noise: Noise) -> Strip:
    """The same uniform numbers behind two values of the first pixel, and where the images then differ."""
    uniform = noise.fork("first pixel").uniform("pixels", ROWS, shape.chw)
    blank = torch.zeros(ROWS, *shape.chw, dtype=torch.uint8, device=uniform.device)
    plain = complete(uniform, blank, 0)
    first = order[: shape.channels]
    ends = []
    for level in (0, shape.levels - 1):
        begun = blank.clone().flatten(1)
        begun[:, first] = level
        ends.append(complete(uniform, begun.view_as(blank), shape.channels))
    differ = (ends[0] != ends[1]).any(1, keepdim=True).expand_as(blank)
    share = float(differ.float().mean())
    images = torch.stack([image.cpu() for image in (plain, *ends, (differ * (shape.levels - 1)).to(torch.uint8))], 1)
    caption = (
        "Each row is drawn with the same uniform numbers; only the first pixel is set, to the lowest or to the highest "
        f"level. The last column is white where the two differ: {share:.0%} of the pixels of these images."
    )
    labels = ("as drawn", "first = 0", f"first = {shape.levels - 1}", "differ")
    return Strip("The same numbers, another first pixel", caption, ("",) * ROWS, labels, images)


def known_half(shape: ImageShape) -> int:
    """Dimensions of the upper half of the rows, rounded down; half of all where there is one row only."""
    rows = shape.height // 2
    return rows * shape.width * shape.channels if rows else shape.dims // 2
