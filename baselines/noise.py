"""Randomness keyed by (seed, image index, purpose), so that image i is the same whatever the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_BLOCK = 16_384  # most floats drawn ahead per image by `normals`; fixed, since it is part of what image i is


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else (SHA-256, the same everywhere)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, which dropout draws from, where they are used.

    `torch.manual_seed` notes a whole traceback for devices that are not yet begun.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


@dataclass(frozen=True)
class Noise:
    """Per-image random numbers for images `first`, `first + 1`, ...

    Every image owns a generator per purpose, seeded by (seed, purpose, index): the batch size, the order of
    the batches and the device do not change its numbers. They are drawn on the CPU and moved to `device`.
    """

    seed: int
    first: int = 0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def at(self, first: int) -> Noise:
        """The same noise for a batch that begins at global image index `first`."""
        return replace(self, first=first)

    def fork(self, purpose: object) -> Noise:
        """Independent noise for the same images, say the k-th importance sample."""
        return replace(self, seed=derive_seed(self.seed, "fork", purpose))

    def _generators(self, purpose: str, n: int) -> list[torch.Generator]:
        seeds = (derive_seed(self.seed, purpose, self.first + i) for i in range(n))
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(self, purpose: str, n: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, (n, *shape)."""
        out = torch.empty(n, *shape, dtype=self.dtype)
        for row, generator in zip(out, self._generators(purpose, n), strict=True):
            row.normal_(generator=generator)
        return out.to(self.device)

    def uniform(self, purpose: str, n: int, shape: tuple[int, ...]) -> Tensor:
        """Uniform numbers in [0, 1), (n, *shape)."""
        out = torch.empty(n, *shape, dtype=self.dtype)
        for row, generator in zip(out, self._generators(purpose, n), strict=True):
            row.uniform_(generator=generator)
        return out.to(self.device)

    def normals(self, purpose: str, n: int, shape: tuple[int, ...], steps: int) -> Iterator[Tensor]:
        """An endless sequence of independent standard normal (n, *shape), one for each step of a sampler.

        Numbers are drawn in blocks, so that one step costs a slice and not n generator calls; `steps`, how many the
        caller will take, keeps a block from being larger than of use, and is part of what image i is.
        """
        generators = self._generators(purpose, n)
        dims = torch.Size(shape).numel()
        ahead = max(1, min(_BLOCK // max(dims, 1), steps))
        while True:
            block = torch.empty(n, ahead * dims, dtype=self.dtype)  # a new one: the caller may keep what it got
            for row, generator in zip(block, generators, strict=True):
                row.normal_(generator=generator)
            moved = block.view(n, ahead, *shape).transpose(0, 1).contiguous().to(self.device)
            yield from moved
