"""One side's process: started in its tree, asked line by line, never waited for without a limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_TAIL = 2000  # characters of what a process wrote to standard error


class SideError(Exception):
    """The work raised, the process ended, or it took too long; the message's last line says what."""


@dataclass(frozen=True)
class Job:
    """What a side's process is to serve."""

    suite_file: Path
    suite: str
    device: str = "cpu"
    packages: Sequence[str] = ()
    timeout_s: float = 300.0  # for one answer
    work_s: float = 1.5  # at most about so long for the rounds of a workload in one pair, both sides together


def environment(tree: Path) -> dict[str, str]:
    """The caller's, with the tree (and its src) first among what Python imports from, one thread for all arithmetic.

    What a surrounding pytest says of itself is left out, since the child may be one too. glibc is told to keep freed
    memory, as the cells of a run are, since clearing new pages is no part of the work.
    """
    tops = (str(top) for top in (tree, tree / "src") if top.is_dir())
    path = os.pathsep.join(filter(None, (*tops, os.environ.get("PYTHONPATH"))))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**ours, **threads, **keep, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "MPLBACKEND": "Agg"}


def end_group(pid: int) -> None:
    """Kill the process that leads a group, and whatever it started and left behind."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Side:
    """A process that runs workloads in one tree, on one core if that is asked for."""

    def __init__(self, tree: Path, job: Job, core: int | None = None) -> None:
        self.tree, self.job = tree, job
        self._told: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        child = Path(__file__).with_name("child.py")
        arguments = [str(tree), str(job.suite_file), job.suite, job.device, *job.packages]
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(child), *arguments],
            cwd=tree,
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._told,
            bufsize=0,
            process_group=0,  # Ctrl-C is for the gate, which then ends all that the work has started
        )
        if core is not None:
            with suppress(
                OSError
            ):  # it has ended already, which the first question will tell; or the system forbids it
                os.sched_setaffinity(self._process.pid, {core})
        self._rest = b""
        self._hello: dict[str, Any] | None = None

    @property
    def hello(self) -> dict[str, Any]:
        """What it said when it was ready: `origins` of the packages and `names` of the workloads.

        Raises:
            SideError: if it did not get ready.
        """
        if self._hello is None:
            self._hello = self._read()
        return self._hello

    def prepare(self, name: str) -> tuple[float | None, dict[str, float]]:
        """Seconds of one warm call of this workload (None: nothing to time), and its counters.

        Raises:
            SideError: if the work fails.
        """
        said = self.ask({"do": "prepare", "name": name})
        once_s = said["once_s"]
        try:
            counters = {str(k): float(v) for k, v in said["counters"].items()}
        except (TypeError, ValueError) as error:
            raise SideError(f"counters: expected numbers by name, got {said['counters']!r:.200}") from error
        return None if once_s is None else float(once_s), counters

    def time(self, loops: int) -> tuple[float, float, int]:
        """Wall and CPU seconds of so many calls of the prepared work, and how often it waited for something.

        Raises:
            SideError: if the work fails.
        """
        said = self.ask({"do": "time", "loops": loops})
        return float(said["wall_s"]), float(said["cpu_s"]), int(said["waits"])

    def ask(self, what: dict[str, Any]) -> dict[str, Any]:
        """One line there, one back."""
        _ = self.hello
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
        except OSError as error:
            raise SideError(self._ended()) from error
        return self._read()

    def close(self) -> None:
        """End the process and what it started, whatever they do."""
        end_group(self._process.pid)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._told):
            if pipe is not None:
                pipe.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        until = time.monotonic() + self.job.timeout_s
        while b"\n" not in self._rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                self._process.kill()
                raise SideError(f"no answer within {self.job.timeout_s:g} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise SideError(self._ended())
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise SideError(str(said["error"]))
        return said

    def _ended(self) -> str:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        self._told.seek(0)
        tail = self._told.read().decode(errors="replace")[-_TAIL:]
        return f"{tail.strip()}\nthe process ended ({how})".strip()
