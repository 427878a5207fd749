"""Runs each job in a process of its own on this machine, some side by side, each within limits of time and memory."""

from __future__ import annotations

import multiprocessing
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
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, TypeVar

from bench.executors.guard import Output, ask_where, end_group, end_own_group, memory_bytes, settle
from bench.plain_text import printable

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
    output: Output
    started: float

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self.process.pid is not None
        return self.process.pid


@dataclass(frozen=True)
class _Limits:
    seconds: float
    memory_mb: int | None

    @property
    def poll_s(self) -> float:
        """How often to look: memory can be taken at some GB a second."""
        return 0.2 if self.memory_mb is None else 0.05

    def exceeded(self, item: _Running[J]) -> Outcome[J] | None:
        """The outcome of a job that has gone beyond a limit."""
        seconds = time.monotonic() - item.started
        if seconds > self.seconds:
            ask_where(item.pid, item.output)
            error = f"it took longer than its limit of {self.seconds:g} s"
            return Outcome(item.job, "timeout", error=error + item.output.told, seconds=seconds)
        if self.memory_mb is None:
            return None
        taken = memory_bytes(item.pid) / 2**20
        if taken <= self.memory_mb:
            return None
        error = f"it took {taken:,.0f} MiB of main memory, more than its limit of {self.memory_mb:,} MiB"
        error += " (memory_limit_mb of the matrix, or --memory-limit)"
        return Outcome(item.job, "failed", error=error + item.output.told, seconds=seconds)


def run_jobs(
    jobs: Sequence[J],
    target: Callable[[J, Send], Any],
    slots: int,
    time_limit_s: float,
    on_progress: Callable[[J, tuple[str, int, int]], None],
    memory_limit_mb: int | None = None,
) -> Iterator[Outcome[J]]:
    """Run `target(job, send)` for every job, at most `slots` at a time, and yield outcomes as they come.

    A job that raises, dies or goes beyond a limit is an outcome like another; the rest goes on. What jobs print goes to
    this process's standard error, cleaned and cut. Leaving the iterator early kills what runs. `target` and its results
    must be importable and picklable.

    memory_limit_mb: MiB of main memory that a job may take, with all it starts (`guard.memory_bytes`); None: any.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_WARM)
    queue, running = deque(jobs), dict[Connection, _Running[J]]()
    limits = _Limits(time_limit_s, memory_limit_mb)
    try:
        while queue or running:
            while queue and len(running) < slots:
                connection, item = _start(context, target, queue.popleft())
                running[connection] = item
            printing = {item.output.connection: item.output for item in running.values() if item.output.open}
            ready = wait([*running, *printing], timeout=limits.poll_s)
            for output in (printing[c] for c in ready if isinstance(c, Connection) and c in printing):
                output.take()
            for connection in [c for c in ready if isinstance(c, Connection) and c in running]:
                outcome = _receive(connection, running[connection], on_progress)
                if outcome is not None:
                    _end(connection, running.pop(connection))
                    yield outcome
            for connection, item in list(running.items()):
                outcome = limits.exceeded(item)
                if outcome is not None:
                    item.process.kill()
                    _end(connection, running.pop(connection))
                    yield outcome
    finally:
        for item in running.values():
            item.process.kill()
        for connection, item in running.items():
            _end(connection, item)


def _start(context: ForkServerContext, target: Callable[[J, Send], Any], job: J) -> tuple[Connection, _Running[J]]:
    ours, theirs = context.Pipe(duplex=False)
    output, printed = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(target, job, theirs, printed), daemon=True)
    with _main_hidden():
        process.start()
    theirs.close()
    printed.close()
    return ours, _Running(job, process, Output(output), time.monotonic())


def _receive(
    connection: Connection, item: _Running[J], on_progress: Callable[[J, tuple[str, int, int]], None]
) -> Outcome[J] | None:
    seconds = time.monotonic() - item.started
    try:
        kind, content = connection.recv()
    except (EOFError, OSError):
        item.process.join(5)
        item.output.drain(0.3)
        died = _how_it_died(item.process.exitcode) + item.output.told
        return Outcome(item.job, "failed", error=died, seconds=seconds)
    except Exception as error:  # a result or an error of a class that cannot be made again here
        return Outcome(item.job, "failed", error=f"its result cannot be read: {printable(str(error))}", seconds=seconds)
    if kind == "progress":
        on_progress(item.job, content)
        return None
    if kind == "result":
        return Outcome(item.job, "ok", result=content, seconds=seconds)
    return Outcome(item.job, "failed", error=content, seconds=seconds)


def _end(connection: Connection, item: _Running[J]) -> None:
    connection.close()
    item.process.join(0.5)  # one that has sent its result is about to leave
    end_group(item.pid)
    if item.process.is_alive():
        item.process.kill()
        item.process.join()
    item.output.close()


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-exitcode, f"signal {-exitcode}")
        hints = {"SIGKILL": " (out of memory?)", "SIGSEGV": " (a segmentation fault)", "SIGXFSZ": " (a file too large)"}
        return f"the process was ended by {name}{hints.get(name, '')}"
    return f"the process ended without a result (exit status {exitcode})"


def _child(target: Callable[[J, Send], Any], job: J, connection: Connection, output: Connection) -> None:
    settle(output)
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
        first = _cut(f"{type(error).__name__}: {error}", 2_000)
        message = ("error", printable(f"{first}\n\n{_cut(trace, 8_000)}"))
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
    end_own_group()


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
