"""Jobs that a test's executor runs in processes of their own: well-behaved, failing, dying, hanging."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.executors.guard import memory_bytes

Send = Callable[[tuple[str, int, int]], None]


class Unreadable(Exception):
    """Cannot be made again from its pickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"unreadable {one} {two}")


def work(job: tuple[str, str], send: Send) -> str:
    """Do what the job's name says."""
    what, folder = job
    if what == "raise":
        raise ValueError("as told")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(600)
    if what == "exit":
        os._exit(3)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "print and die":
        print("\x1b[31mred\x1b[0m last words")
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "eat":
        held = []
        for _ in range(100):
            held.append(b"x" * (20 << 20))
            time.sleep(0.02)
    if what == "start another":
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return str(sleeper.pid)
    if what == "start one that eats":
        subprocess.run([sys.executable, "-c", "x = b'x' * (400 << 20); import time; time.sleep(5)"], check=True)
    if what == "memory":
        return str(memory_bytes(os.getpid()))
    if what == "garbage":
        os.write(1, b"\xff\xfe \x1b[2J\x1b]0;title\x07 \x00\x08\x9b31m bell \x07\n")
        os.write(2, b"half a sign \xe2\x82")
        for _ in range(40):
            os.write(1, b"y" * 99_999 + b"\n")
    if what == "odd error":
        raise ValueError("\x1b[31mred\x07 \udcff")
    if what == "odd class":
        raise Unreadable(1, 2)
    if what == "odd result":
        return Unreadable(1, 2)  # type: ignore[return-value]
    for done in range(4):
        send(("counting", done, 3))
    if what.startswith("alone"):
        mark = Path(folder) / "running"
        mark.touch(exist_ok=False)  # fails if another job is running
        time.sleep(0.05)
        mark.unlink()
    if what == "orphan":
        (Path(folder) / "pid").write_text(str(os.getpid()))
        time.sleep(600)
    return f"{what} done by {os.getpid()}"


def tell_gpus(order: Any, send: Send) -> None:
    """In place of a node's cell: fails with the GPUs that its process sees."""
    from bench.executors import node

    node.see_gpus(order)
    raise RuntimeError(f"sees {os.environ.get('CUDA_VISIBLE_DEVICES')}")
