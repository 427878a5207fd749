"""Jobs that a test's executor runs in processes of their own: well-behaved, failing, dying, hanging."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

Send = Callable[[tuple[str, int, int]], None]


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
