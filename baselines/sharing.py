"""One training by several processes: what each takes of a batch and of its randomness, and what they tell each other.

Rank r of R takes rows r B / R to (r + 1) B / R of a batch of B images, and the same rows of all random numbers, which
every rank draws for the whole batch. A loss that is a mean over images then has the whole batch's value and gradient as
the mean of the ranks', and the weights stay the same on all ranks. The first step is done whole by every rank, because
flows set their first weights from the statistics of the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from baselines.errors import UserError
from baselines.types import Budget

T = TypeVar("T")


def _itself(rows: Tensor) -> Tensor:
    return rows


@dataclass(frozen=True)
class Share:
    """The rows of a batch that one rank takes; all of them by default."""

    rank: int = 0
    size: int = 1
    rows: int = 0  # images of one rank
    gather: Callable[[Tensor], Tensor] = _itself

    def whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape that the whole batch's numbers have where this rank wants (k n, ...) for its n images.

        What is no multiple of n long belongs to no image, and is the same on every rank.
        """
        if self.size == 1 or not shape or shape[0] % self.rows:
            return tuple(shape)
        return (shape[0] * self.size, *shape[1:])

    def part(self, whole: Tensor, length: int) -> Tensor:
        """This rank's `length` rows of the whole batch's numbers: of each of its k blocks the n rows that are ours."""
        if self.size == 1 or whole.dim() == 0 or len(whole) == length:
            return whole
        blocks = whole.reshape(-1, self.size, self.rows, *whole.shape[1:])
        return blocks[:, self.rank].flatten(0, 1)

    def every(self, rows: Tensor) -> Tensor:
        """The rows of all ranks (B, ...), in the batch's order, of ours (n, ...); without gradient."""
        return self.gather(rows.detach())

    def strata(self, n: int, uniform: Callable[[int], Tensor]) -> Tensor:
        """Numbers (n,) in [0, 1), one in each of as many equal parts as the whole batch has images; rising."""
        u = uniform(n)
        return (torch.arange(n, device=u.device) + self.rank * n + u) / (self.size * n)

    def dropping(self) -> AbstractContextManager[object]:
        """While losses are computed: dropout drops what it would have dropped of the whole batch."""
        return nullcontext() if self.size == 1 else _SharedDropout(self)


class _SharedDropout(TorchFunctionMode):
    _KINDS = (F.dropout, F.dropout1d, F.dropout2d)

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Draw the whole batch's mask and take our rows of it."""
        given = kwargs or {}
        if func not in self._KINDS:
            return func(*args, **given)
        named = {"p": 0.5, "training": True} | dict(zip(("input", "p", "training"), args, strict=False)) | given
        x, p = named["input"], named["p"]
        if not named["training"] or p == 0:
            return x
        shape = self.share.whole(x.shape if func is F.dropout else x.shape[:2] + (1,) * (x.dim() - 2))
        ones = x.new_ones(shape)
        if func is F.dropout and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            ones = ones.contiguous(memory_format=torch.channels_last)  # masks are drawn in the order of memory
        return x * self.share.part(func(ones, p, True), len(x))


class Team:
    """The processes that train one model together: this one alone, unless a subclass knows others."""

    rank = 0
    size = 1

    def share(self, batch_size: int, step: int) -> Share:
        """What this rank takes of a step's batches."""
        if self.size == 1 or step == 0:
            return Share()
        return Share(self.rank, self.size, batch_size // self.size, self.gathered)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Set each tensor to its mean over the ranks, in place; alone there is nothing to do."""

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in their order."""
        return rows

    def told(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        return value

    def check(self, model: nn.Module, batch_size: int, budget: Budget, coupled: str) -> None:
        """Refuse a training that several processes cannot share.

        coupled: what the model says of its losses.

        Raises:
            UserError: with the reason.
        """
        if self.size == 1:
            return
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            coupled = coupled or "batch norm takes the statistics of the whole batch"
        what = f"{type(model).__name__} by {self.size} processes"
        if coupled:
            raise UserError(f"{what}: {coupled}")
        if batch_size % self.size:
            raise UserError(f"{what}: expected a training.batch_size that {self.size} divides, got {batch_size}")
        if not budget.reproducible:
            raise UserError(f"{what}: expected a budget in images, got {budget.label()}: clocks differ")


ALONE = Team()
