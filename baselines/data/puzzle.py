"""Digits in pieces: images of which three key patches are given, in no order and without their places.

Lee et al. 2017 (arXiv:1703.10730) take the informative regions that a detector of objects finds. Here a window informs
by its ink: by how many standard deviations it has more than the training images have in that place. The window with the
most is taken, then the one with the most that shares no pixel with it, and so on. Windows with nearly no ink come
last. Counted so, key patches lie anywhere in the image; the plain most of ink or of edges lies in the middle, where one
mask for all images is half right.

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
LEAST_INK = 0.1
"""Share of the ink of the image's fullest window that a key patch has at least, while there are such windows: of a thin
stroke all else would be empty corners, which are usual but say nothing."""
_LAST = 1e6


def ink_of_windows(images: Images, side: int) -> Counts:
    """The sum of levels in each window, (N, H - side + 1, W - side + 1), of images (N, C, H, W)."""
    sums: Counts = images.sum(1, dtype=np.int64)
    for axis in (1, 2):
        last = sums.shape[axis] - side + 1
        parts = [sums.swapaxes(1, axis)[:, i : i + last].swapaxes(1, axis) for i in range(side)]
        sums = parts[0].copy()
        for part in parts[1:]:
            sums += part
    return sums


def usual_ink(images: Images, side: int) -> tuple[Values, Values]:
    """Mean and standard deviation, over images (N, C, H, W), of the ink of each window, (rows, columns).

    From sums of whole numbers, so that they are the same on any machine.
    """
    parts = [ink_of_windows(part, side) for part in _chunks(images)]
    n, total = len(images), np.sum([ink.sum(0) for ink in parts], 0)
    squares = np.sum([(ink**2).sum(0) for ink in parts], 0)
    return total / n, np.sqrt(n * squares - total**2) / n


def news(ink: Counts, mean: Values, deviation: Values) -> Values:
    """By how many standard deviations a window has more ink than usual, (N, rows, columns); nearly empty ones last."""
    found: Values = (ink - mean) / (deviation + LEAST_DEVIATION * max(deviation.max(), 1.0))
    return np.where(ink >= LEAST_INK * ink.max((1, 2), keepdims=True), found, found - _LAST)


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
    steps, image = np.arange(side), np.arange(n)[:, None, None, None]
    rows, columns = places[..., 0, None, None] + steps[:, None], places[..., 1, None, None] + steps
    masks = np.zeros((n, 1, *images.shape[2:]), np.bool_)
    masks[image, 0, rows, columns] = True
    patches = np.moveaxis(images[image, :, rows, columns], -1, 2)  # (N, K, C, side, side)
    for own in patches:
        own[:] = own[sorted(range(count), key=lambda k: hashlib.sha256(own[k].tobytes()).digest())]
    return torch.from_numpy(np.ascontiguousarray(patches)), torch.from_numpy(masks)


def of(base: Dataset) -> Dataset:
    """`digits-puzzle` or `mnist-puzzle`: the enlarged images, each with its key patches and where they lie."""
    large = enlarged.of(base)
    side = max(1, min(large.shape.height, large.shape.width) // PARTS_OF_A_SIDE)
    usual = usual_ink(large.train.images.numpy(), side)
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
    places = [key_places(news(ink_of_windows(part, side), *usual), PATCHES, side) for part in _chunks(images)]
    patches, masks = cut(images, np.concatenate(places), side)
    return dataclasses.replace(split, requests=Requests(Given(patches=patches), answers=split.images, masks=masks))


def _chunks(images: Images) -> list[Images]:
    """Parts of some thousand images: 64-bit numbers of all at once would fill gigabytes."""
    return np.array_split(images, max(1, len(images) // 1000))
