"""Digits and their outlines, two domains without pairs: the data of translations whose right answer is known.

Domain A are the enlarged digits, filled; domain B their outlines: a digit is interpolated to four times its sides
(bilinear), cut at half of the ink's range, and the band that dilation has and erosion has not (5x5 squares; the
morphological gradient of Rivest et al. 1993, Journal of Electronic Imaging 2(4)) is averaged back to the digit's own
size, about a pixel wide and anti-aliased. Outside of the frame lies background.

For training the images of the train split are cut in two halves by stratified hash order: one is shown filled, the
other as outlines, so no digit is seen in both domains. On the other splits every digit is translated, and its true
outline is kept for scores alone.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.data import enlarged
from baselines.data.dataset import Dataset, Split
from baselines.data.splitting import stratified_order
from baselines.given import Given, Requests
from baselines.types import Conditions

FACTOR = 4  # the contour is drawn on a grid so much finer
RADIUS = 2  # pixels of that grid, by which dilation and erosion move the contour
HALF = 128  # of 256 levels: where ink begins
_BATCH = 500


def outlines(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) of 256 levels to their outlines, the same; all steps are exact in float32."""
    return torch.cat([_outlines(batch) for batch in torch.split(images, _BATCH)])


def _outlines(images: Tensor) -> Tensor:
    fine = F.interpolate(images.float(), scale_factor=FACTOR, mode="bilinear", align_corners=False)
    ink = fine >= HALF
    band = _grown(ink, outside=False) & _grown(~ink, outside=True)  # dilation, and not erosion
    return (F.avg_pool2d(band.float(), FACTOR) * 255).round().to(torch.uint8)


def _grown(shape: Tensor, outside: bool) -> Tensor:
    """A bool image (N, C, H, W) dilated by a square; `outside` is what lies beyond the frame."""
    height, width = shape.shape[2:]
    padded = F.pad(shape, (RADIUS,) * 4, value=outside)
    rows = padded[..., :width].clone()
    for shift in range(1, 2 * RADIUS + 1):
        rows |= padded[..., shift : shift + width]
    grown = rows[..., :height, :].clone()
    for shift in range(1, 2 * RADIUS + 1):
        grown |= rows[..., shift : shift + height, :]
    return grown


def of(base: Dataset) -> Dataset:
    """`digits-outline` or `mnist-outline`: images and labels are of the outlines, what is given are filled digits."""
    large = enlarged.of(base)
    filled, target = halves(large.train)
    train = Split(
        outlines(target.images), target.labels, attributes=classes_of(target), requests=unpaired(filled.images)
    )
    return dataclasses.replace(
        large,
        name=f"{base.name}-outline",
        train=train,
        val=_scored(large.val),
        test=_scored(large.test),
        tasks=frozenset({"unconditional", "translation"}),
        conditions=Conditions(source=large.shape),
        note=f"outlines of {large.name}, a pixel wide; in training {len(filled)} other digits are given filled, "
        f"without pairs; {large.note}",
    )


def halves(split: Split) -> tuple[Split, Split]:
    """Two halves without a common image, each with the classes' overall shares; the odd one goes to the second."""
    assert split.labels is not None
    order = torch.from_numpy(stratified_order(split.labels.numpy()))
    first, second = order[: len(order) // 2].sort().values, order[len(order) // 2 :].sort().values
    return Split(split.images[first], split.labels[first]), Split(split.images[second], split.labels[second])


def unpaired(sources: Tensor) -> Requests:
    """What a translation learns from beside the images of its target: sources, and nothing of any answer."""
    return Requests(Given(images=sources), aligned=False)


def classes_of(split: Split) -> Tensor:
    """Labels as the one attribute `digit`, (N, 1): the classifier of the target domain judges whether it is kept."""
    assert split.labels is not None
    return split.labels[:, None]


def _scored(filled: Split) -> Split:
    """All digits, filled, to be translated, and their outlines: the target's images as well as the answers."""
    answers = outlines(filled.images)
    digit = classes_of(filled)
    requests = Requests(Given(images=filled.images), attributes=digit, answers=answers)
    return Split(answers, filled.labels, attributes=digit, requests=requests)
