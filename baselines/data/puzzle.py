"""Digits in pieces: images of which three key patches are given, in no order and without their places.

Lee et al. 2017 (arXiv:1703.10730) cut patches out where an edge detector finds an object. Here the content of a window
is its edges: the sum of squared differences of neighbouring pixels. The window with the most is taken, then the one
with the most that shares no pixel with it, and so on. Patches stand in the order of a hash of their pixels, which
tells neither where they lay nor which was found first. Where they lay is known of every image, so scores are exact.
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

PATCHES = 3
PARTS_OF_A_SIDE = 4
"""A patch is a quarter of the image wide and high: 4x4 of 16x16, 8x8 of 32x32."""


def edges(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Squared differences to the right and the lower neighbour, summed over channels, (N, H, W), of (N, C, H, W)."""
    values = images.astype(np.int64)
    found = np.zeros((len(images), *images.shape[2:]), np.int64)
    found[:, :, :-1] += (np.diff(values, axis=3) ** 2).sum(1)
    found[:, :-1, :] += (np.diff(values, axis=2) ** 2).sum(1)
    return found


def key_places(content: NDArray[np.int64], count: int, side: int) -> NDArray[np.int64]:
    """Upper left corners (N, count, 2), row and column, of the windows with the most content, none sharing a pixel.

    content: (N, H, W), not negative. Ties go to the upper, then to the left window.

    Raises:
        ValueError: if an image has no room for so many windows.
    """
    n, height, width = content.shape
    if min(height, width) < side:
        raise ValueError(f"key patches: expected images of {side} pixels or more, got {height}x{width}")
    sums = np.lib.stride_tricks.sliding_window_view(content, (side, side), axis=(1, 2)).sum((3, 4))
    rows, columns = np.ogrid[: sums.shape[1], : sums.shape[2]]
    places = np.empty((n, count, 2), np.int64)
    for k in range(count):
        best = sums.reshape(n, -1).argmax(1)
        places[:, k] = np.stack(np.unravel_index(best, sums.shape[1:]), 1)
        if (sums.reshape(n, -1)[np.arange(n), best] < 0).any():
            raise ValueError(f"key patches: expected room for {count} of side {side}, got {height}x{width}")
        row, column = places[:, k, 0, None, None], places[:, k, 1, None, None]
        sums[(abs(rows - row) < side) & (abs(columns - column) < side)] = -1  # they would share a pixel
    return places


def cut(images: NDArray[np.uint8], places: NDArray[np.int64], side: int) -> tuple[Tensor, Tensor]:
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
    train, val, test = (_split(split, side) for split in (large.train, large.val, large.test))
    return dataclasses.replace(
        large,
        name=f"{base.name}-puzzle",
        train=train,
        val=val,
        test=test,
        note=f"{PATCHES} patches of {side}x{side} with the most edges of each image; {large.note}",
        tasks=frozenset({"unconditional", "completion"}),
        conditions=Conditions(patches=(PATCHES, side)),
    )


def _split(split: Split, side: int) -> Split:
    images = split.images.numpy()
    patches, masks = cut(images, key_places(edges(images), PATCHES, side), side)
    return dataclasses.replace(split, requests=Requests(Given(patches=patches), answers=split.images, masks=masks))
