"""Sets of images that metrics compare, held in memory or read batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.data.dataset import Dataset
from baselines.types import ImageShape

Labels = NDArray[np.int64]


class ImageSet(Protocol):
    """Images of one shape, in a fixed order."""

    what: str  # for messages and the protocol: "test images", "samples"
    shape: ImageShape
    labels: Labels | None  # (N,)
    stratified: bool  # whether the classes' shares were fixed when the set was made

    def __len__(self) -> int: ...

    def content(self) -> str:
        """A digest of all pixels and their order: equal digests, equal images."""
        ...

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 (B, C, H, W) with B of `size`, the last one smaller."""
        ...


@dataclass
class Held:
    """Images in memory, uint8 (N, C, H, W)."""

    images: Tensor
    shape: ImageShape
    what: str
    labels: Labels | None = None
    stratified: bool = False
    _digest: tuple[int, str] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def content(self) -> str:
        """SHA-256 of shape, levels and pixels; computed anew after a change in place."""
        version = self.images._version
        if self._digest is None or self._digest[0] != version:
            digest = pixels_digest(len(self), self.shape)
            digest.update(self.images.detach().cpu().contiguous().numpy())
            self._digest = version, digest.hexdigest()
        return self._digest[1]

    def batches(self, size: int) -> Iterator[Tensor]:
        """Views of the tensor."""
        yield from torch.split(self.images, size)


def pixels_digest(count: int, shape: ImageShape) -> Any:
    """A SHA-256 that pixels are to be fed to, in order."""
    return hashlib.sha256(repr((count, *shape)).encode())


def of_split(dataset: Dataset, split: str = "test") -> Held:
    """A data set's train, val or test images."""
    chosen = {"train": dataset.train, "val": dataset.val, "test": dataset.test}[split]
    labels = None if chosen.labels is None else np.asarray(chosen.labels.cpu().numpy(), np.int64)
    return Held(chosen.images, dataset.shape, f"{split} images", labels, dataset.stratified)


def of_samples(samples: Tensor, dataset: Dataset) -> Held:
    """Images that a model drew."""
    return Held(samples, dataset.shape, "samples")
