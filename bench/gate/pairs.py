"""Times the same work in two trees: pairs of fresh processes side by side, their rounds in turns, A B B A."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bench.gate.outcome import PAIRS, Row
from bench.gate.process import Job, Side, SideError
from bench.gate.rule import Pair, Tally, counter_rows, failed_row
from bench.gate.trees import Trees

ROUNDS = 150
_ROUND_S = 0.002  # a round is about so long: far above the clock, and short enough that many are not interrupted
_LEAST_ROUNDS = 8  # of long work

Name = Literal["base", "head"]
Told = Callable[[str], None]


@dataclass(frozen=True)
class Planted:
    """A workload as it is, or (for the gate's test of itself) with an extra share of its own work on the head."""

    name: str
    extra: float = 0.0

    @property
    def label(self) -> str:
        """The name, with the extra."""
        return self.name + (f" +{self.extra:.0%}" if self.extra else "")


@dataclass
class Timed:
    """All that is known of one workload after some pairs."""

    work: Planted
    tally: Tally
    per: float = 1.0  # calls a round
    counters: dict[Name, dict[str, float]] = field(default_factory=dict)
    failed: dict[Name, str] = field(default_factory=dict)
    untimed: bool = False  # it has counters alone

    @property
    def open(self) -> bool:
        """Whether another pair could change something."""
        return not (self.failed or self.untimed or self.tally.decided)

    def rows(self) -> list[Row]:
        """Its time and its counters, or why there are none."""
        name, known = self.work.label, self.counters
        counters = counter_rows(name, known["base"], known["head"]) if len(known) == 2 else ()
        if self.failed:
            failed = failed_row(name, self.failed.get("base"), self.failed.get("head"), ran="base" in known)
            return [failed, *counters]
        if self.untimed:
            return [*counters] or [Row("time", name, "unclear", note="nothing to time and nothing to count")]
        return [self.tally.row(name, self.per), *counters]


def abba(first: Name, rounds: int) -> Iterable[Name]:
    """Whose turn it is: A B B A A B B A ..., each side `rounds` times; a drift of the machine favours neither."""
    second: Name = "head" if first == "base" else "base"
    for i in range(rounds):
        yield from (first, second) if i % 2 == 0 else (second, first)


class Both:
    """A pair of fresh processes; one that died is replaced, so that the other workloads are still measured."""

    def __init__(self, trees: Trees, job: Job, first: Name, core: int | None = None) -> None:
        self._trees, self._job, self.first, self._core = trees, job, first, core
        second: Name = "head" if first == "base" else "base"
        self._sides: dict[Name, Side] = {}
        try:
            for name in (first, second):
                self._sides[name] = self._start(name)
        except BaseException:
            self.close()
            raise

    def _start(self, name: Name) -> Side:
        return Side(self._trees.base if name == "base" else self._trees.head, self._job, self._core)

    def __enter__(self) -> Both:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End both processes."""
        for side in self._sides.values():
            side.close()

    def measure(self, timed: Timed) -> None:
        """Add one pair to what is known of this workload."""
        once: dict[Name, float | None] = {}
        for name in abba(self.first, 1):
            try:
                once[name], timed.counters[name] = self._sides[name].prepare(timed.work.name)
            except SideError as error:
                self._failed(timed, name, error)
        if timed.failed:
            return
        once_s = once["base"]
        if once_s is None or once["head"] is None:
            if once_s is not None:
                timed.failed["head"] = "nothing to time, where the base has"
            timed.untimed = True
            return
        base_loops, head_loops, rounds = plan(max(once_s, 1e-7), timed.work.extra, self._job.work_s)
        loops: dict[Name, int] = {"base": base_loops, "head": head_loops}
        timed.per = base_loops
        seconds: dict[Name, list[tuple[float, float, int]]] = {"base": [], "head": []}
        for i, name in enumerate(abba(self.first, rounds + 1)):
            try:
                took = self._sides[name].time(loops[name])
            except SideError as error:
                self._failed(timed, name, error)
                return
            if i >= 2:  # the first round of each warms up
                seconds[name].append(took)
        cpu = None if self._job.device.startswith("cuda") else _clock(seconds, 1)
        waits = any(min(took[2] for took in rounds) > 0 for rounds in seconds.values())
        timed.tally.found.append(replace(_clock(seconds, 0), cpu=cpu, waits=waits))

    def _failed(self, timed: Timed, name: Name, error: SideError) -> None:
        timed.failed[name] = str(error)
        self._sides[name].close()
        self._sides[name] = self._start(name)


def _clock(seconds: Mapping[Name, Sequence[tuple[float, float, int]]], which: int) -> Pair:
    base, head = (tuple(max(took[which], 1e-9) for took in seconds[name]) for name in ("base", "head"))
    return Pair(base, head, turns=True)


def cores(device: str) -> list[int | None]:
    """The cores for the pairs, one after the other; [None] leaves it to the system.

    Both sides of a pair work on one core, which they never want at the same time: on two, the neighbours of each would
    count as a difference of the code. A process that drives a GPU is left alone.
    """
    if device != "cpu" or not hasattr(os, "sched_getaffinity"):
        return [None]
    return [*sorted(os.sched_getaffinity(0))]


def plan(once_s: float, extra: float = 0.0, work_s: float = 1.5) -> tuple[int, int, int]:
    """Calls in a round of the base and of the head, and rounds, from the time of one call on the base.

    Args:
        once_s: seconds of one call.
        extra: the share of additional calls on the head; a round is then as long as whole calls need.
        work_s: of all rounds, as far as the least number of rounds allows.
    """
    loops = max(1, round(_ROUND_S / once_s))
    if extra:
        loops = max(20, 20 * round(loops / 20))
    rounds = int(work_s / (2 * loops * once_s))
    return loops, round(loops * (1 + extra)), min(ROUNDS, max(_LEAST_ROUNDS, rounds))


def names(trees: Trees, job: Job) -> list[str]:
    """The workloads of the suite, as the head has them.

    Raises:
        SideError: if the head cannot even load them.
    """
    side = Side(trees.head, job)
    try:
        return [str(name) for name in side.hello["names"]]
    finally:
        side.close()


def measure(
    trees: Trees, job: Job, work: Sequence[Planted], pairs: int = PAIRS, told: Told | None = None
) -> list[Timed]:
    """Time each workload in up to `pairs` pairs of processes; the order of the two changes from pair to pair."""
    found, places = [Timed(held, Tally(pairs)) for held in work], cores(job.device)
    for i in range(pairs):
        waiting = [timed for timed in found if timed.open]
        if not waiting:
            break
        with Both(trees, job, "base" if i % 2 == 0 else "head", places[i % len(places)]) as both:
            for timed in waiting:
                if told is not None:
                    told(f"pair {i + 1} of {pairs}: {timed.work.label}")
                both.measure(timed)
    return found
