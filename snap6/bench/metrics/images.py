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

    what: str  # for messages: "test images", "samples"
    split: str  # for the protocol: "test"; of a user's own images their name
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

    def part(self, first: int, last: int) -> ImageSet:
        """Images first .. last - 1, small enough to be handed to another process; its content is not asked for."""
        ...


@dataclass
class Held:
    """Images in memory, uint8 (N, C, H, W)."""

    images: Tensor
    shape: ImageShape
    what: str
    split: str = ""
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

    def part(self, first: int, last: int) -> Held:
        """A copy of these images."""
        return Held(self.images[first:last].clone(), self.shape, self.what, self.split)


def pixels_digest(count: int, shape: ImageShape) -> Any:
    """A SHA-256 that pixels are to be fed to, in order."""
    return hashlib.sha256(repr((count, *shape)).encode())


def files_digest() -> Any:
    """A SHA-256 that whole image files are to be fed to, in order, each after its length."""
    return hashlib.sha256(b"files")


def of_split(dataset: Dataset, split: str = "test") -> Held:
    """A data set's train, val or test images."""
    chosen = {"train": dataset.train, "val": dataset.val, "test": dataset.test}[split]
    labels = None if chosen.labels is None else np.asarray(chosen.labels.cpu().numpy(), np.int64)
    return Held(chosen.images, dataset.shape, f"{split} images", split, labels, dataset.stratified)


def of_samples(samples: Tensor, dataset: Dataset) -> Held:
    """Images that a model drew."""
    return Held(samples, dataset.shape, "samples")


@dataclass
class Chosen:
    """Some images of another set, in its order."""

    base: ImageSet
    index: NDArray[np.int64]  # rising
    what: str

    def __post_init__(self) -> None:
        self.shape, self.split, self.stratified = self.base.shape, self.base.split, False
        self.labels = None if self.base.labels is None else self.base.labels[self.index]

    def __len__(self) -> int:
        return len(self.index)

    def content(self) -> str:
        """A digest of the whole set and of which are chosen."""
        return hashlib.sha256(self.base.content().encode() + self.index.tobytes()).hexdigest()

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 (B, C, H, W)."""
        if not len(self.index):
            return
        start, end = int(self.index[0]), int(self.index[-1]) + 1
        kept: list[Tensor] = []
        for batch in self.base.part(start, end).batches(size):
            low, high = np.searchsorted(self.index, [start, start + len(batch)])
            kept.append(batch[torch.from_numpy(self.index[low:high] - start)])
            start += len(batch)
            while sum(map(len, kept)) >= size:
                whole = torch.cat(kept)
                kept = [whole[size:]]
                yield whole[:size]
        if sum(map(len, kept)):
            yield torch.cat(kept)

    def part(self, first: int, last: int) -> Chosen:
        """Of the same set, without what lies before or behind."""
        index = self.index[first:last]
        start = int(index[0])
        return Chosen(self.base.part(start, int(index[-1]) + 1), index - start, self.what)
