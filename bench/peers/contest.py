"""One piece of work, ours and the peers' ways to do it, and what agreement between the answers means."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Work = Callable[[], Any]


class FromChild(NamedTuple):
    """The answer of work that a process of its own did: what it printed, and its peak resident memory in bytes."""

    text: str
    peak_bytes: int


@dataclass(frozen=True)
class Agreement:
    """How far a peer's answer is from ours, in the terms that suit the work.

    Attributes:
        measure: what was compared and how, e.g. "relative difference of FID".
        found: the distance, at least 0; NaN counts as disagreement.
        allowed: the most at which the two count as the same number.
        expected: why they may differ by more than that, where the reason is known; "" says that they should agree.
    """

    measure: str
    found: float
    allowed: float
    expected: str = ""

    @property
    def holds(self) -> bool:
        """Is the distance within what is allowed?"""
        return self.found <= self.allowed


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: as people call it; of a peer that takes part more than once, what sets this way apart too.
        work: does it once and returns the answer; everything that is not the work itself was made before.
        package: the distribution that does it, whose version is recorded; of ours "trilemma-bench".
        share: what share of the whole work one call does (a naive loop stopped early); its seconds are divided by it,
            so that it is not for work of which a part is done once.
        note: what a reader must know to read its row.
    """

    name: str
    work: Work
    package: str
    share: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Contest:
    """The same work by several contenders on the same input.

    Attributes:
        name: the work in words, with its sizes; unique.
        group: the heading that it stands under.
        ours, peers: who takes part.
        agree: agree(our answer, a peer's answer), by the peer's name; None where answers are draws at random.
        rounds: how many timed rounds, each with every contender once; 6 is the least for a 95 % interval.
        threads: of torch and the linear algebra, for all contenders; with one they are held to one core, so that a
            peer that starts threads or processes of its own has no more than the others.
        warm: is there a round before the timed ones? Without it the first timed round gives answers and memory too:
            for work of minutes, which everybody does cold.
    """

    name: str
    group: str
    ours: Contender
    peers: tuple[Contender, ...]
    agree: Mapping[str, Callable[[Any, Any], Agreement]] = field(default_factory=dict)
    rounds: int = 9
    threads: int = 1
    warm: bool = True

    def __post_init__(self) -> None:
        names = [self.ours.name, *(peer.name for peer in self.peers)]
        if len(set(names)) < len(names):
            raise ValueError(f"contest {self.name!r}: expected names of their own for all contenders, got {names}")
        if unknown := set(self.agree) - set(names[1:]):
            raise ValueError(f"contest {self.name!r}: agreement with {sorted(unknown)}, who takes no part")
        for who in (self.ours, *self.peers):
            if not 0 < who.share <= 1:
                raise ValueError(f"contest {self.name!r}: expected a share in (0, 1] of {who.name}, got {who.share}")
        if self.rounds < 1 or self.threads < 1:
            raise ValueError(f"contest {self.name!r}: expected rounds and threads of 1 or more")


@dataclass(frozen=True)
class Entry:
    """A contest that can be made: what it needs is known before anything is imported.

    Attributes:
        name, group: the contest's.
        make: builds its inputs and contenders; given a scratch folder of its own. May leave out peers that are missing.
        needs: modules without which there is no contest at all.
        long: takes many minutes, and is left out unless it is asked for.
    """

    name: str
    group: str
    make: Callable[[Path], Contest]
    needs: tuple[str, ...] = ()
    long: bool = False

    def missing(self) -> tuple[str, ...]:
        """The modules of `needs` that are not installed."""
        return tuple(name for name in self.needs if not installed(name))


_LIBRARIES = ("benchopt", "cleanfid", "nflows", "normflows", "pythae", "pytorch_fid", "torchmetrics")
_MODULES = ("metrics", "evaluation", "diffusion", "flows", "training", "autoregressive", "commands")


def entries() -> Iterator[Entry]:
    """Every contest there is, in the order of the page; imports the files of contests but no peer and no torch."""
    for name in _MODULES:
        yield from importlib.import_module(f"bench.peers.{name}").ENTRIES


def absent() -> tuple[str, ...]:
    """Libraries that are not installed: contests that can do without them are raced with the others."""
    return tuple(name for name in _LIBRARIES if not installed(name))


def installed(module: str) -> bool:
    """Can the module be imported? Found out without importing it."""
    return importlib.util.find_spec(module) is not None


def version(package: str) -> str | None:
    """The installed version of a distribution; None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
