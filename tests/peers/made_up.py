"""Contests of made-up work, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.peers import book
from bench.peers.contest import Agreement, Contender, Contest, Entry

GROUP = "Made up"


def contender(name: str, work: Callable[[], Any] = lambda: 1.0, **given: Any) -> Contender:
    return Contender(name, work, "numpy", **given)


def contest(*peers: Contender, ours: Contender | None = None, **given: Any) -> Contest:
    return Contest("Some work", GROUP, ours or contender("ours"), peers, **{"rounds": 1, **given})


def entry(name: str, needs: tuple[str, ...] = (), long: bool = False, **given: Any) -> Entry:
    def make(folder: Path) -> Contest:
        return replace(contest(contender("theirs"), **given), name=name)

    return Entry(name, GROUP, make, needs, long)


def apart(found: float) -> Callable[[Any, Any], Agreement]:
    return lambda ours, theirs: Agreement("how far", found, 0.1)


def row(peer: str = "theirs", **given: Any) -> book.Row:
    usual = {"package": "numpy", "version": "1.2", "seconds": (2.0, 2.2), "peak_bytes": 2**20, "ratio": 2.0}
    return book.Row(peer=peer, **{**usual, **given})


def race(work: str = "Some work", rows: tuple[book.Row, ...] | None = None, **given: Any) -> book.Race:
    usual = {"group": GROUP, "ours": "ours", "seconds": (1.0, 1.1), "peak_bytes": 2**19, "threads": 1}
    return book.Race(work=work, rows=(row(),) if rows is None else rows, **{**usual, **given})
