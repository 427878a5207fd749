"""What a conditional model is given with each image that it is to draw, and what is known of the right answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

_Rows = TypeVar("_Rows", "Given", "Requests")


@dataclass(frozen=True)
class Given:
    """One row an image; None where the task has no such part. The data set makes it."""

    labels: Tensor | None = None  # (B,) int64, the class that is wanted
    images: Tensor | None = None  # (B, C, H, W) uint8, the source images of a translation
    tokens: Tensor | None = None  # (B, L) int64 words of a caption, 0 behind its end
    attributes: Tensor | None = None  # (B, A) int64, the values that the translated image is to have
    patches: Tensor | None = None  # (B, K, C, side, side) uint8, key patches in no order, their places not told

    def __len__(self) -> int:
        return _rows(self)

    def take(self, index: Tensor) -> Given:
        """The rows at `index` (B,)."""
        return _taken(self, index)

    def at(self, first: int, n: int) -> Given:
        """Rows first .. first + n - 1, from the start again where they run out."""
        return self.take(torch.arange(first, first + n) % len(self))

    def to(self, device: torch.device | str) -> Given:
        """The same on a device."""
        moved = {name: tensor.to(device) for name, tensor in tensors_of(self).items()}
        return dataclasses.replace(self, **moved)


@dataclass(frozen=True)
class Requests:
    """What models are asked for on a split, and beside it what only scores may see."""

    given: Given
    aligned: bool = True  # whether row i belongs to image i of the split; else the two are unpaired
    attributes: Tensor | None = None  # (M, A) int64, what the image must show
    originals: Tensor | None = None  # (M, A) int64, of a translation: what the source images have of given.attributes
    answers: Tensor | None = None  # (M, C, H, W) uint8, the image that was meant, where there is one right answer
    masks: Tensor | None = None  # (M, 1, H, W) bool, where the key patches lie in it
    unseen: Tensor | None = None  # (M,) bool, whether no training image has this combination

    def __len__(self) -> int:
        return len(self.given)

    def take(self, index: Tensor) -> Requests:
        """The rows at `index` (B,)."""
        return dataclasses.replace(_taken(self, index), given=self.given.take(index))

    def at(self, first: int, n: int) -> Requests:
        """Rows first .. first + n - 1, from the start again where they run out."""
        return self.take(torch.arange(first, first + n) % len(self))


def tensors_of(rows: Given | Requests) -> Mapping[str, Tensor]:
    """The tensors that there are, by field."""
    values = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _rows(rows: Given) -> int:
    lengths = {name: len(tensor) for name, tensor in tensors_of(rows).items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"given: expected tensors with one number of rows, got {lengths or 'none'}")
    return next(iter(lengths.values()))


def _taken(rows: _Rows, index: Tensor) -> _Rows:
    taken: dict[str, Any] = {n: tensor[index.to(tensor.device)] for n, tensor in tensors_of(rows).items()}
    return dataclasses.replace(rows, **taken)
