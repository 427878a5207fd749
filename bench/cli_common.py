"""What commands of the command line share."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from baselines.errors import UserError


@contextmanager
def stoppable(told: str = "stopped; the same command goes on from here", once: bool = False) -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) end the run alike, and it says how it goes on.

    once: further ones are not heard until the process has ended, so that what the first one left to be cleaned up is,
        and the exit status is the first one's.
    """
    before: dict[signal.Signals, Any] = {}
    ending = False
    if threading.current_thread() is threading.main_thread():  # elsewhere Python lets nobody set them
        kept = (signal.SIG_IGN, None)  # nohup, or a handler of another language
        numbers = (signal.SIGTERM, signal.SIGHUP, *((signal.SIGINT,) if once else ()))
        before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) not in kept}

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = once
        for other in before if once else ():
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt as end:
        with suppress(OSError):  # the terminal may be gone
            print(f"\n{told}", file=sys.stderr)
        raise typer.Exit(exit_status(end)) from None
    finally:
        for number, handler in before.items() if not ending else ():
            signal.signal(number, handler)


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_status(stop: KeyboardInterrupt) -> int:
    """As a shell counts: 128 and the signal's number; 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)


def overrides(settings: list[str], models: list[str]) -> dict[str, dict[str, Any]]:
    """`model.key=value` to {model: {key: value}}, the value read as TOML, or as a bare word.

    models: those named by --model, some of whose names hold dots themselves (my.module, file.py).
    """
    import tomllib

    out: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        named = max((name for name in models if target.startswith(f"{name}.")), key=len, default=None)
        model, dot, key = (named, ".", target[len(named) + 1 :]) if named else target.partition(".")
        if not (equals and dot and model and key):
            raise UserError(f"--set: expected model.key=value, got {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        out.setdefault(model, {})[key] = value
    return out


STDOUT = Path("-")
"""What `--markdown -` names."""


def check_file(option: str, path: Path | None) -> None:
    """Whether a file that the user asked for can be written there, before anything is computed.

    Raises:
        UserError: if it is a folder, or its folder is not there.
    """
    if path is not None and (path.is_dir() or not path.resolve().parent.is_dir()):
        raise UserError(f"{option} {path}: expected a file in an existing folder")


def write_text(option: str, path: Path, text: str) -> None:
    """Write a file that the user asked for; lone surrogates, as in names that are no UTF-8, become their escapes.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        path.write_bytes(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise UserError(f"{option} {path}: expected a file that can be written: {error.strerror or error}") from error
