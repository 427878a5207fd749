"""What a data set is: three fixed splits of uint8 images, and a fingerprint of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.given import Requests, tensors_of
from baselines.types import Conditions, ImageShape, Task


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, C, H, W) with levels 0 .. levels - 1, labels int64 (N,) where the data has them."""

    images: Tensor
    labels: Tensor | None = None
    intensities: Tensor | None = None
    """uint8 (N, C, H, W) 0..255, for data binarised anew at every look: P(pixel = 1) = intensity / 255."""
    attributes: Tensor | None = None  # (N, A) int64, the values that each image has
    requests: Requests | None = None  # of the conditional tasks of the data set

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def take(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """The training images at `index` (B,): as stored, or drawn anew from their intensities."""
        if self.intensities is None:
            return self.images[index]
        probability = self.intensities[index].float() / 255
        return (torch.rand(probability.shape, generator=generator) < probability).to(torch.uint8)


@dataclass(frozen=True)
class Dataset:
    """A named data set. Training sees `train`, selection sees `val`, the printed metrics see `test`."""

    name: str
    shape: ImageShape
    train: Split
    val: Split
    test: Split
    source: str  # who made the images
    note: str  # how they were split and prepared
    classes: int | None = None
    stratified: bool = False  # whether the classes' shares in the test split were fixed when it was made
    truth: Callable[[Tensor], Tensor] | None = None
    """For generated data: -log P(x) in nats (B,) of uint8 (B, C, H, W), exactly."""

    tasks: frozenset[Task] = frozenset({"unconditional"})  # what models can learn on it
    conditions: Conditions = Conditions()

    @property
    def development(self) -> Tensor:
        """Train and validation images together, uint8: all real images that are not the test split."""
        return torch.cat([self.train.images, self.val.images])

    @property
    def development_split(self) -> Split:
        """`development` with its labels, where both parts have them."""
        parts = [split.labels for split in (self.train, self.val) if split.labels is not None]
        return Split(self.development, torch.cat(parts) if len(parts) == 2 else None)

    def fingerprint(self) -> str:
        """SHA-256 over shape, splits and labels; part of every key."""
        digest = hashlib.sha256(repr(tuple(self.shape)).encode())
        for split in (self.train, self.val, self.test):
            for tensor in (split.images, split.labels, split.intensities):
                digest.update(b"-" if tensor is None else repr(tuple(tensor.shape)).encode())
                if tensor is not None:
                    digest.update(tensor.contiguous().numpy().tobytes())
            for name, tensor in _conditional(split).items():  # data without conditions keeps the digest it always had
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _conditional(split: Split) -> dict[str, Tensor]:
    """Attributes, what models are given, and the right answers, each under a name of its own."""
    found = {} if split.attributes is None else {"attributes": split.attributes}
    if split.requests is not None:
        found |= {f"given.{name}": tensor for name, tensor in tensors_of(split.requests.given).items()}
        found |= {f"requests.{name}": tensor for name, tensor in tensors_of(split.requests).items()}
    return found
