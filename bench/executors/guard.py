"""What keeps a cell's process in bounds: its output caught, its memory watched, its end certain.

Models are other people's code. One that prints garbage must not reach the terminal with it, and one that eats memory
must not take the run along.
"""

from __future__ import annotations

import codecs
import faulthandler
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from bench.plain_text import printable

_TOLD = 10_000  # characters that a process's output is passed on of
_KEPT = 2_000  # characters of its end that a record of its failure holds
_BLOCK = 1 << 16
_MODULES = "Extension modules: "  # the last line of a fault, hundreds of names
_ASKED = signal.SIGUSR1  # makes a cell's process print where it is


class Output:
    """What a process prints: passed on to our standard error line by line, cleaned and cut; its end is kept."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.open = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line, self._last = "", ""
        self._left = _TOLD
        os.set_blocking(connection.fileno(), False)

    def take(self) -> None:
        """Read what there is, a block at most, so that one that prints for ever gets no more than its turn."""
        try:
            data = os.read(self.connection.fileno(), _BLOCK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.open = bool(data)
        text = self._decoder.decode(data, final=not data)
        *lines, self._line = (self._line + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line = self._line[:_TOLD]
        for line in lines:
            self._tell(line)

    def drain(self, seconds: float) -> None:
        """Read on until it ends, or so long."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            self.take()
            time.sleep(0.005)

    def close(self) -> None:
        """Pass on what is left of it."""
        for _ in range(16):  # a pipe holds no more, but it may be filled again and again
            if self.open:
                self.take()
        self._tell(self._line)
        self._line, self.open = "", False
        self.connection.close()

    @property
    def told(self) -> str:
        """The last that it printed, for the record of a failure; empty if nothing."""
        text = (self._last if self._line.startswith(_MODULES) else self._last + printable(self._line)).strip()
        return f"\n\nThe last that it printed:\n{text[-_KEPT:]}" if text else ""

    def _tell(self, line: str) -> None:
        if line.startswith(_MODULES):
            return
        line = printable(line)
        self._last = f"{self._last}{line}\n"[-_KEPT:]
        if self._left <= 0 or not line.strip():
            return
        text = line[: self._left]
        self._left -= len(text) + 1
        if self._left <= 0:
            text += " ... (all further output of this cell is left out)"
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def settle(output: Connection) -> None:
    """In the child: print into `output`, lead a group of processes, and be what the kernel ends if memory runs out."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # these are the parent's to handle
    faulthandler.enable(2, all_threads=False)  # a segmentation fault says where
    faulthandler.register(_ASKED, 2, all_threads=False)
    with suppress(OSError):
        os.setpgid(0, 0)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")


def ask_where(pid: int, output: Output) -> None:
    """Have a process that hangs print its stack, which is then the end of its output."""
    assert pid > 1
    with suppress(OSError):
        os.kill(pid, _ASKED)
        output.drain(0.3)


def end_group(pid: int) -> None:
    """Kill a child, and whatever it started and left behind."""
    assert pid > 1
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def end_own_group() -> None:
    """In the child: end with all that it started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def can_watch_memory() -> bool:
    """Whether this system tells what memory a process has taken."""
    return _own_memory(os.getpid()) > 0


def memory_bytes(pid: int) -> int:
    """Main memory that a process and all it started have taken: anonymous and shared pages, swapped ones as well.

    Pages of mapped files (libraries, data sets) do not count, since the kernel takes them back when it wants them. 0 if
    it is gone, or the system does not tell.
    """
    return sum(_own_memory(each) for each in _family(pid))


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def _own_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
    if "RssAnon" not in found:
        return 1024 * found.get("VmRSS", 0)
    return 1024 * sum(found.get(name, 0) for name in ("RssAnon", "RssShmem", "VmSwap"))
