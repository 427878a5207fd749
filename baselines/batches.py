"""Training batches by position: the same ones whether training was interrupted or not."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.contract import Batch, Given
from baselines.data.dataset import Dataset
from baselines.noise import derive_seed
from baselines.types import Task


class Batches:
    """The train split in an endless order that hangs on the seed alone."""

    def __init__(self, dataset: Dataset, task: Task, seed: int, device: torch.device) -> None:
        self.split, self.seed, self.device = dataset.train, seed, device
        self.order = Order(len(dataset.train), derive_seed(seed, "order"))
        self.requests = None if task == "unconditional" else dataset.train.requests
        self.other: Order | None = None
        if self.requests is not None and not self.requests.aligned:
            self.other = Order(len(self.requests), derive_seed(seed, "order of what is given"))

    def at(self, position: int, size: int) -> Batch:
        """Images `position`, ..., `position + size - 1` of the order, with what belongs to them."""
        index = self.order.take(position, size)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "redraw", position))
        images = self.split.take(index, generator).to(self.device)
        labels, attributes = self._rows(self.split.labels, index), self._rows(self.split.attributes, index)
        return Batch(images, labels, attributes, self._given(index, position), self._masks(index))

    def every_image(self) -> Tensor:
        """The whole train split in its own order, uint8 (N, C, H, W)."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "redraw, all"))
        return self.split.take(torch.arange(len(self.split)), generator).to(self.device)

    def _given(self, index: Tensor, position: int) -> Given | None:
        if self.requests is None:
            return None
        rows = index if self.other is None else self.other.take(position, len(index))
        return self.requests.given.take(rows).to(self.device)

    def _masks(self, index: Tensor) -> Tensor | None:
        if self.requests is None or not self.requests.aligned:
            return None
        return self._rows(self.requests.masks, index)

    def _rows(self, values: Tensor | None, index: Tensor) -> Tensor | None:
        return None if values is None else values[index].to(self.device)


class Order:
    """An endless order of n images: one seeded permutation after another, cut without regard to their ends."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self.permutations: dict[int, Tensor] = {}

    def take(self, position: int, size: int) -> Tensor:
        """The indices at `position`, ..., `position + size - 1` of the order."""
        pieces = []
        while size > 0:
            epoch, offset = divmod(position, self.n)
            piece = self._permutation(epoch)[offset : offset + size]
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return torch.cat(pieces)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self.permutations:
            self.permutations = {e: p for e, p in self.permutations.items() if e >= epoch - 1}
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            self.permutations[epoch] = torch.randperm(self.n, generator=generator)
        return self.permutations[epoch]
