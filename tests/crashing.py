"""A process that dies in the middle of writing: at every call to the system by turns."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

CALLS = ("open", "write", "fsync", "replace", "rename", "unlink", "ftruncate", "close")


def dies_at(call: int, work: Callable[[], object]) -> bool:
    """Do the work in a forked process that kills itself before its n-th call to the system, from 0; whether it did.

    Where it writes, half of the bytes are written before.
    """
    pid = os.fork()
    if pid == 0:
        try:
            _count_down(call)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _count_down(call: int) -> None:
    left = [call]
    for name in CALLS:
        setattr(os, name, _counted(getattr(os, name), name, left))


def _counted(real: Callable[..., Any], name: str, left: list[int]) -> Callable[..., Any]:
    def counted(*arguments: Any, **keywords: Any) -> Any:
        if left[0] == 0:
            if name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*arguments, **keywords)

    return counted
