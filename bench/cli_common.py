"""What commands of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from baselines.errors import UserError


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C ends the run and says how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


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
