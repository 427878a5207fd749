"""The processes that torchrun starts, as a team that trains one model together; Accelerate joins them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from baselines.errors import UserError
from baselines.sharing import Team

T = TypeVar("T")

_WAIT = timedelta(days=1)  # while rank 0 validates; a rank that dies closes its socket, and is noticed at once


class Joined(Team):
    """The ranks of one torchrun, over NCCL where each has a GPU, else over gloo; to be entered by all of them.

    Gradients and losses are averaged in one message for each type of number. What is told is pickled, among our own
    processes.
    """

    def __init__(self, device: str) -> None:
        """Meet the other ranks.

        Raises:
            UserError: if Accelerate is not installed, or the others do not come.
        """
        try:
            import accelerate
            from accelerate import utils
        except ImportError:
            raise UserError("train: Accelerate is not installed; pip install 'trilemma-bench[accelerate]'") from None
        self.utils: Any = utils
        try:
            state = accelerate.PartialState(cpu=device == "cpu", timeout=_WAIT)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"torchrun: the ranks cannot meet ({str(error).splitlines()[0]})") from None
        self.rank, self.size = state.process_index, state.num_processes

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with suppress(RuntimeError):
                dist.barrier()
                dist.destroy_process_group()

    @staticmethod
    def leave(status: int) -> NoReturn:
        """End this process at once: threads of gloo's now and then abort one that takes itself apart, its work done."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Set each tensor to its mean over the ranks, in place."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            ours = [tensor for tensor in tensors if tensor.dtype == dtype]
            mean = self.utils.reduce(torch.cat([tensor.reshape(-1) for tensor in ours]), "mean")
            for tensor, part in zip(ours, mean.split([tensor.numel() for tensor in ours]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in their order."""
        found: Tensor = self.utils.gather(rows.contiguous())
        return found

    def told(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        found: list[T] = self.utils.broadcast_object_list([value])
        return found[0]
