"""Runs each job in a process of its own on this machine, some side by side, each with a time limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar

J = TypeVar("J")

Send = Callable[[tuple[str, int, int]], None]
"""send((phase, done, total)): progress out of a job's process."""

_WARM = ["bench.worker", "torch._dynamo", "sklearn.datasets", "sklearn.mixture", "scipy.linalg"]
"""Imported once by the server from which the processes are forked; a start then takes milliseconds."""


@dataclass(frozen=True)
class Outcome(Generic[J]):
    """How a job ended: with a result, or with what stopped it."""

    job: J
    status: Literal["ok", "failed", "timeout"]
    result: Any = None
    error: str = ""
    seconds: float = 0.0


@dataclass
class _Running(Generic[J]):
    job: J
    process: BaseProcess
    started: float


def run_jobs(
    jobs: Sequence[J],
    target: Callable[[J, Send], Any],
    slots: int,
    time_limit_s: float,
    on_progress: Callable[[J, tuple[str, int, int]], None],
) -> Iterator[Outcome[J]]:
    """Run `target(job, send)` for every job, at most `slots` at a time, and yield outcomes as they come.

    A job that raises, dies or outlasts its limit is an outcome like another; the rest goes on. Leaving the
    iterator early kills what runs. `target` and its results must be importable and picklable.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_WARM)
    queue, running = deque(jobs), dict[Connection, _Running[J]]()
    try:
        while queue or running:
            while queue and len(running) < slots:
                job = queue.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(target, job, theirs), daemon=True)
                with _main_hidden():
                    process.start()
                theirs.close()
                running[ours] = _Running(job, process, time.monotonic())
            ready = [item for item in wait(list(running), timeout=0.2) if isinstance(item, Connection)]
            for connection in ready:
                outcome = _receive(connection, running[connection], on_progress)
                if outcome is not None:
                    _end(connection, running.pop(connection))
                    yield outcome
            for connection, item in list(running.items()):
                if time.monotonic() - item.started > time_limit_s:
                    _end(connection, running.pop(connection))
                    yield Outcome(item.job, "timeout", error=f"it took longer than its limit of {time_limit_s:g} s")
    finally:
        for item in running.values():
            item.process.kill()
        for connection, item in running.items():
            _end(connection, item)


def _receive(
    connection: Connection, item: _Running[J], on_progress: Callable[[J, tuple[str, int, int]], None]
) -> Outcome[J] | None:
    seconds = time.monotonic() - item.started
    try:
        kind, content = connection.recv()
    except (EOFError, OSError):
        item.process.join(5)
        return Outcome(item.job, "failed", error=_how_it_died(item.process.exitcode), seconds=seconds)
    if kind == "progress":
        on_progress(item.job, content)
        return None
    if kind == "result":
        return Outcome(item.job, "ok", result=content, seconds=seconds)
    return Outcome(item.job, "failed", error=content, seconds=seconds)


def _end(connection: Connection, item: _Running[J]) -> None:
    connection.close()
    item.process.join(0.5)  # one that has sent its result is about to leave
    if item.process.is_alive():
        item.process.kill()
        item.process.join()


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended without a result (exit status {exitcode})"


def _child(target: Callable[[J, Send], Any], job: J, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_follow_the_parent, daemon=True).start()
    last = [("", 0.0)]

    def send(progress: tuple[str, int, int]) -> None:
        phase, done, total = progress
        now = time.monotonic()
        if phase != last[0][0] or done >= total or now - last[0][1] > 0.2:
            last[0] = (phase, now)
            connection.send(("progress", progress))

    try:
        message = ("result", target(job, send))
    except BaseException as error:  # every end of a job is reported, then the process is gone
        trace = "".join(traceback.format_exception(error, limit=-6))
        message = ("error", f"{_cut(f'{type(error).__name__}: {error}', 2_000)}\n\n{_cut(trace, 8_000)}")
    with suppress(BrokenPipeError):  # nobody is left to tell
        connection.send(message)
        connection.close()


def _cut(text: str, most: int) -> str:
    """The end of a long text is left out: a record is read by people."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} more characters)"


def _follow_the_parent() -> None:
    """End with the parent, even if it was killed: an orphan would train on beside the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep multiprocessing from importing the user's script again in each process; the jobs need none of it."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        if "__file__" in hidden:
            del main.__file__
        main.__spec__ = None
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
