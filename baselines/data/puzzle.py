"""Digits in pieces: images of which three key patches are given, in no order and without their places.

Lee et al. 2017 (arXiv:1703.10730) take the informative regions that a detector of objects finds. Here a window informs
by its ink: by how many standard deviations it has more than the training images have in that place. The window with the
most is taken, then the one with the most that shares no pixel with it, and so on. Counted so, key patches lie anywhere
in the image; the plain most of ink or of edges lies in the middle, where one mask for all images is half right.

Patches stand in the order of a hash of their pixels, which tells neither where they lay nor which was found first.
Where they lay is known of every image, so scores are exact.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.contract import Given
from baselines.data import enlarged
from baselines.data.dataset import Dataset, Split
from baselines.given import Requests
from baselines.types import Conditions

Images = NDArray[np.uint8]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]

PATCHES = 3
PARTS_OF_A_SIDE = 4
"""A patch is a quarter of the image wide and high: 4x4 of 16x16, 8x8 of 32x32."""
LEAST_DEVIATION = 0.15
"""Added to the standard deviations, as a share of the largest: at the border, where hardly any image has ink, a trace
of it is no news."""


def ink_of_windows(images: Images, side: int) -> Counts:
    """The sum of levels in each window, (N, H - side + 1, W - side + 1), of images (N, C, H, W)."""
    sums: Counts = images.sum(1, dtype=np.int64)
    for axis in (1, 2):
        last = sums.shape[axis] - side + 1
        shifted = [sums.take(range(i, i + last), axis) for i in range(side)]
        sums = np.sum(shifted, 0, dtype=np.int64)
    return sums


def usual_ink(ink: Counts) -> tuple[Values, Values]:
    """Mean and standard deviation (rows, columns) of ink (N, rows, columns).

    From sums of whole numbers, so that they are the same on any machine.
    """
    n, total = len(ink), ink.sum(0)
    return total / n, np.sqrt(n * (ink**2).sum(0) - total**2) / n


def news(ink: Counts, mean: Values, deviation: Values) -> Values:
    """By how many standard deviations a window has more ink than usual, (N, rows, columns)."""
    found: Values = (ink - mean) / (deviation + LEAST_DEVIATION * max(deviation.max(), 1.0))
    return found


def key_places(content: Values, count: int, side: int) -> Counts:
    """Upper left corners (N, count, 2), row and column, of the windows with the most content, none sharing a pixel.

    content: (N, rows, columns), of each window by its upper left corner. Ties go to the upper, then to the left one.

    Raises:
        ValueError: if an image has no room for so many windows.
    """
    left, n = content.copy(), len(content)
    rows, columns = np.ogrid[: content.shape[1], : content.shape[2]]
    places = np.empty((n, count, 2), np.int64)
    for k in range(count):
        best = left.reshape(n, -1).argmax(1)
        if np.isneginf(left.reshape(n, -1)[np.arange(n), best]).any():
            size = f"{content.shape[1] + side - 1}x{content.shape[2] + side - 1}"
            raise ValueError(f"key patches: expected images with room for {count} of side {side}, got {size}")
        places[:, k] = np.stack(np.unravel_index(best, content.shape[1:]), 1)
        row, column = places[:, k, 0, None, None], places[:, k, 1, None, None]
        left[(abs(rows - row) < side) & (abs(columns - column) < side)] = -np.inf  # these would share a pixel
    return places


def cut(images: Images, places: Counts, side: int) -> tuple[Tensor, Tensor]:
    """Patches uint8 (N, K, C, side, side) in the order of their hashes, and masks bool (N, 1, H, W) of where they lay.

    images: (N, C, H, W). places: (N, K, 2), upper left corners.
    """
    n, count = places.shape[:2]
    patches = np.empty((n, count, images.shape[1], side, side), np.uint8)
    masks = np.zeros((n, 1, *images.shape[2:]), np.bool_)
    for i in range(n):
        found = [images[i][:, r : r + side, c : c + side] for r, c in places[i]]
        patches[i] = sorted(found, key=lambda patch: hashlib.sha256(patch.tobytes()).digest())
        for r, c in places[i]:
            masks[i, 0, r : r + side, c : c + side] = True
    return torch.from_numpy(patches), torch.from_numpy(masks)


def of(base: Dataset) -> Dataset:
    """`digits-puzzle` or `mnist-puzzle`: the enlarged images, each with its key patches and where they lie."""
    large = enlarged.of(base)
    side = max(1, min(large.shape.height, large.shape.width) // PARTS_OF_A_SIDE)
    usual = usual_ink(ink_of_windows(large.train.images.numpy(), side))
    train, val, test = (_split(split, side, usual) for split in (large.train, large.val, large.test))
    return dataclasses.replace(
        large,
        name=f"{base.name}-puzzle",
        train=train,
        val=val,
        test=test,
        note=f"{PATCHES} key patches of {side}x{side} of each image; {large.note}",
        tasks=frozenset({"unconditional", "completion"}),
        conditions=Conditions(patches=(PATCHES, side)),
    )


def _split(split: Split, side: int, usual: tuple[Values, Values]) -> Split:
    images = split.images.numpy()
    places = key_places(news(ink_of_windows(images, side), *usual), PATCHES, side)
    patches, masks = cut(images, places, side)
    return dataclasses.replace(split, requests=Requests(Given(patches=patches), answers=split.images, masks=masks))
