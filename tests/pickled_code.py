"""A pickle that runs code when it is loaded: for tests that nothing loads one."""

from __future__ import annotations

from collections.abc import Callable


class Executed(Exception):
    """What the pickle of `Bomb` raises if it is run."""


def explode() -> None:
    raise Executed


class Bomb:
    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return explode, ()
