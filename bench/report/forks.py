"""Work of others' hands: functions run in forked processes while this one goes on, their results fetched when needed.

A forked process has all that this one held, so nothing is sent to it; only what it made comes back. A fork copies
no threads, so nothing is forked where threads run or may be needed: the work is then done here, with the same result.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """A result that may still be in the making; two are equal if their results are."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._made: T
        self._end: Connection | None = None
        self._process: BaseProcess | None = None

    def result(self) -> T:
        """What the work made; raises what the work raises."""
        if self._end is not None:
            self._fetch(self._end)
        if self._work is not None:
            self._made, self._work = self._work(), None
        return self._made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Later) and bool(self.result() == other.result())

    __hash__ = None  # type: ignore[assignment]

    def begin(self) -> Connection:
        """Start the work in a process of its own; where its result can be read."""
        context = get_context("fork")
        self._end, far = context.Pipe(duplex=False)
        self._process = context.Process(target=_send, args=(self._work, far), daemon=True)
        self._process.start()
        far.close()
        return self._end

    def _fetch(self, end: Connection) -> None:
        """Take what the process made; if it failed or was ended, the work is left to be done here."""
        with suppress(EOFError, OSError):  # no word of it, or one that breaks off
            self._made, self._work = end.recv(), None
        end.close()
        assert self._process is not None
        self._process.join()
        self._end = self._process = None


def _send(work: Callable[[], object], end: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began the work ends it
    try:
        end.send(work())
    except Exception:
        end.close()  # done once more by who asked, where the error is told as any other


class _Hands:
    """At most so many processes at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.busy: dict[Connection, Later] = {}  # type: ignore[type-arg]

    def start(self, later: Later[T]) -> None:
        """Begin a work; if all hands are full, when the first of them is free."""
        while len(self.busy) >= self.most:
            for end in [end for end in self.busy if end.closed] or wait(list(self.busy)):
                assert isinstance(end, Connection)
                self.busy.pop(end).result()
        self.busy[later.begin()] = later


_HANDS: ContextVar[_Hands | None] = ContextVar("hands", default=None)


def later(work: Callable[[], T]) -> Later[T]:
    """Begin a work within `hands`; elsewhere it is done when its result is asked for, if ever.

    Args:
        work: takes nothing and returns what can be pickled; what it changes besides is lost.
    """
    made = Later(work)
    given = _HANDS.get()
    if given is not None:
        given.start(made)
    return made


@contextmanager
def hands(most: int | None = None) -> Iterator[None]:
    """Within it, `later` works in other processes.

    Args:
        most: processes at a time; 0: none but this one. None: one a core, and none where a fork is not safe.
    """
    most = _cores() if most is None else most
    if most == 0:
        yield
        return
    held = _HANDS.set(_Hands(most))
    try:
        yield
    finally:
        _HANDS.reset(held)


def _cores() -> int:
    """Cores of this process; 0 where it should not be forked."""
    if sys.platform != "linux" or threading.active_count() > 1 or "torch" in sys.modules:
        return 0
    cores = len(os.sched_getaffinity(0))
    return cores if cores > 1 else 0
