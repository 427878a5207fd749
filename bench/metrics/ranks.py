"""Feature extraction shared out over the ranks that torchrun starts: rank 0 is the program, the others help.

Rank 0 alone reads the command line, opens the images, asks the cache, computes the metrics and prints. All ranks move
in step: rank 0 scatters an order to each, and each answers with one batch of features, with nothing, or with what went
wrong. So no rank waits for one that has taken another way. Orders and answers are pickled, among our own processes.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from baselines.errors import UserError
from bench.device import usable_device
from bench.metrics.base import Extractor, Features
from bench.metrics.extraction import BATCH, by_one
from bench.metrics.extractors import choose_extractor
from bench.metrics.features import fingerprint
from bench.metrics.images import ImageSet

_MEET = timedelta(minutes=10)
_WAIT = timedelta(days=1)  # while rank 0 computes metrics; a rank that dies closes its socket, and is noticed at once
_Part = tuple[int, Features]  # the first image, and the features of those from there


@dataclass(frozen=True)
class Share:
    """What one rank is to extract, and by what."""

    images: ImageSet
    first: int  # of the whole set
    extractor: str
    weights: Path | None
    device: str
    fingerprint: str  # of rank 0's extractor


@dataclass(frozen=True)
class Failure:
    """What went wrong on a rank."""

    told: str
    users: bool  # whether the user can mend it

    def error(self) -> Exception:
        """To be raised on rank 0."""
        return UserError(self.told) if self.users else RuntimeError(self.told)


_NOTHING, _GO_ON, _END = "nothing", "go on", "end"


class Ranks:
    """The processes of one torchrun; to be entered by all of them."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.group: Any = None
        self._in_step = True  # whether all ranks wait for rank 0's next order
        self._opened: tuple[object, Extractor] | None = None

    def __enter__(self) -> Ranks:
        """Meet the other ranks.

        Raises:
            UserError: if they do not come.
        """
        try:  # features are gathered in main memory: gloo does that with GPUs and without
            dist.init_process_group("gloo", timeout=_MEET)
            self.group = dist.new_group(backend="gloo", timeout=_WAIT)
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"torchrun: rank {self.rank} of {self.size} cannot meet the others ({first})") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self.rank == 0 and self._in_step:
            with suppress(RuntimeError):  # a rank that has gone needs no farewell
                self._scatter([_END] * self.size)
        if self._in_step:
            dist.destroy_process_group()

    def help_out(self) -> int:
        """On another rank than 0: extract what rank 0 orders, until it has no more; the exit status."""
        sys.path.insert(0, str(Path.cwd()))  # as on rank 0, for the user's own extractor
        work: Iterator[_Part] = iter(())
        try:
            while (order := self._scatter(None)) != _END:
                if order != _GO_ON:
                    work = self._work(order) if isinstance(order, Share) else iter(())
                self._gather(self._answer(work))
        except RuntimeError:  # rank 0 has gone, and said why if it could
            self._in_step = False
            return 1
        return 0

    def take_device(self, device: str) -> str:
        """cpu or cuda; this rank's own GPU becomes torch's current one. Ranks share where there are fewer GPUs."""
        device = usable_device(device)
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        return device

    def sharing(self, extractor: str | None, weights: Path | None, device: str) -> Shared:
        """On rank 0: what shares extraction out by the extractor of this name, or by rank 0's choice."""
        return Shared(self, extractor, weights, device)

    def share_out(
        self, extractor: Extractor, images: ImageSet, named: str, weights: Path | None, device: str
    ) -> Iterator[_Part]:
        """On rank 0: features of all images, each rank's share in the batches that one process would take.

        Raises:
            UserError: if a rank cannot extract its share, or is gone.
        """
        cuts = [BATCH * (-(-len(images) // BATCH) * rank // self.size) for rank in range(self.size)]
        ends = [*cuts[1:], len(images)]
        told = fingerprint(extractor)
        orders: list[Any] = [
            Share(images.part(first, end), first, named, weights, device, told) if first < end else _NOTHING
            for first, end in zip(cuts, ends, strict=True)
        ]
        own = by_one(extractor, images.part(0, ends[0])) if ends[0] else iter(())
        for _ in range(max(-(-(end - first) // BATCH) for first, end in zip(cuts, ends, strict=True))):
            answers = self._turn(orders, own)
            for answer in answers:
                if isinstance(answer, Failure):
                    raise answer.error()
            yield from (answer for answer in answers if isinstance(answer, tuple))
            orders = [_GO_ON] * self.size

    def _turn(self, orders: list[Any], own: Iterator[_Part]) -> list[_Part | Failure | None]:
        self._in_step = False
        try:
            self._scatter(orders)
            answers = self._gather(self._answer(own))
        except RuntimeError as error:
            raise UserError(
                "torchrun: a rank is gone; what it had to say stands above, and one that ends in silence has often "
                "run out of memory"
            ) from error
        self._in_step = True
        return answers

    def _answer(self, work: Iterator[_Part]) -> _Part | Failure | None:
        try:
            return next(work, None)
        except (UserError, OSError) as error:
            return Failure(str(error) if self.rank == 0 else f"rank {self.rank}: {error}", users=True)
        except Exception:
            return Failure(f"rank {self.rank} failed:\n{traceback.format_exc()}", users=False)

    def _work(self, share: Share) -> Iterator[_Part]:
        key = share.extractor, share.weights
        if self._opened is None or self._opened[0] != key:
            device = self.take_device(share.device)
            extractor, _ = choose_extractor("", share.images.shape, share.extractor, share.weights, device)
            assert extractor is not None
            self._opened = key, extractor
        extractor = self._opened[1]
        if fingerprint(extractor) != share.fingerprint:
            raise UserError(
                f"extractor {extractor.name}: expected rank 0's, got other weights or other code; put the same files "
                "on all machines"
            )
        yield from by_one(extractor, share.images, share.first)

    def _scatter(self, orders: list[Any] | None) -> Any:
        got: list[Any] = [None]
        dist.scatter_object_list(got, orders, src=0, group=self.group)
        return got[0]

    def _gather(self, answer: _Part | Failure | None) -> list[_Part | Failure | None]:
        all_of_them: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(answer, all_of_them, dst=0, group=self.group)
        return all_of_them or []


@dataclass(frozen=True)
class Shared:
    """Shares extraction out, by an extractor that every rank can open."""

    ranks: Ranks
    extractor: str | None  # as the user named it
    weights: Path | None
    device: str

    def parts(self, extractor: Extractor, images: ImageSet) -> Iterator[_Part]:
        """(first, features of BATCH images from there), batch by batch of all ranks."""
        return self.ranks.share_out(extractor, images, self.extractor or extractor.name, self.weights, self.device)
