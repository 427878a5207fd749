"""When a change of time or of a counter is a regression.

Time: of `pairs` pairs of fresh processes, most must say so, and a pair says so if BOTH its ratio is above 1.07 AND a
one-sided rank-sum test of its rounds has p < .01.

Rounds that were taken in turns are compared in turns, since a machine has spells that last longer than a round: the
ratio is the median of neighbours' ratios, and the test is Mann-Whitney's on ranks that are aligned within each A B B A,
exact under exchange within it (`bench.gate.ranks`). Rounds of processes that ran one after the other have no
neighbours: their ratio is that of the fastest rounds, since interruptions only ever make a round slower, and the
Mann-Whitney test pools them all (exact where there are no ties).

Two clocks: work that never gives up its core to wait is judged by CPU time, which a busy machine disturbs far less:
where its wall time is longer, others had the core. Work that waits (for a disk, a lock, a process, a sleep, a GPU) is
judged by wall time, and where that tells no difference and most of it is computing, by CPU time too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.stats import mannwhitneyu

from bench.gate.outcome import PAIRS, Row, Verdict
from bench.gate.ranks import aligned_p
from bench.report.numbers import number

LEAST_RATIO = 1.07
"""How much slower it has to be."""
MOST_P = 0.01
"""Below which p of the rank-sum test the rounds agree that it is slower."""
LEAST_ROUNDS = 5
"""Of 4 rounds against 4 the least possible p is 1/70: nothing could ever be found."""

COMPUTES = 0.5
"""Share of the fastest round's wall time that has to be CPU time, for CPU time to count."""

Vote = Literal["slower", "faster", "neither"]


@dataclass(frozen=True)
class Pair:
    """The rounds of one pair of processes, in seconds for the same work on both sides, by wall time and by CPU time.

    With `turns`, round i of the base and round i of the head followed each other, in the order A B B A.
    """

    base: tuple[float, ...]
    head: tuple[float, ...]
    cpu: Pair | None = None  # the same rounds by the other clock, where that was read
    waits: bool = True  # whether every round of one side gave up its core of its own accord
    turns: bool = False

    def __post_init__(self) -> None:
        for name, rounds in (("base", self.base), ("head", self.head)):
            if len(rounds) < LEAST_ROUNDS:
                raise ValueError(f"{name}: expected {LEAST_ROUNDS} rounds or more, got {len(rounds)}")
            if not all(math.isfinite(x) and x > 0 for x in rounds):
                raise ValueError(f"{name}: expected times above 0, got {min(rounds)} .. {max(rounds)}")
        if self.turns and len(self.base) != len(self.head):
            raise ValueError(f"in turns: expected as many rounds, got {len(self.base)} and {len(self.head)}")

    @cached_property
    def ratio(self) -> float:
        """Head over base: the median of neighbouring rounds' ratios, or the ratio of the fastest rounds."""
        if not self.turns:
            return min(self.head) / min(self.base)
        return float(np.exp(np.median(np.log(self.head) - np.log(self.base))))

    @cached_property
    def p_slower(self) -> float:
        """How probable rounds so much slower would be without a difference."""
        return self._p(self.base, self.head)

    @cached_property
    def p_faster(self) -> float:
        """The same with base and head exchanged."""
        return self._p(self.head, self.base)

    def _p(self, quick: Sequence[float], slow: Sequence[float]) -> float:
        if self.turns:
            return aligned_p(quick, slow)
        return float(mannwhitneyu(slow, quick, alternative="greater").pvalue)

    @property
    def typical(self) -> tuple[float, float]:
        """Seconds of a round of the base and of the head, as the ratio takes them."""
        if self.turns:
            return float(np.median(self.base)), float(np.median(self.head))
        return min(self.base), min(self.head)

    @property
    def judged(self) -> Pair:
        """The clock that decides."""
        if self.cpu is None or (self.waits and self.own_vote != "neither"):
            return self
        return self.cpu if min(self.cpu.base) >= COMPUTES * min(self.base) else self

    @property
    def vote(self) -> Vote:
        """What this pair says."""
        return self.judged.own_vote

    @property
    def own_vote(self) -> Vote:
        """What this clock says: both conditions, or neither."""
        if self.ratio > LEAST_RATIO and self.p_slower < MOST_P:
            return "slower"
        if 1 / self.ratio > LEAST_RATIO and self.p_faster < MOST_P:
            return "faster"
        return "neither"


@dataclass
class Tally:
    """The votes on one workload; the last pairs are not run where they could change nothing."""

    pairs: int = PAIRS
    found: list[Pair] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.pairs % 2 == 0:
            raise ValueError(f"pairs: expected an odd number, got {self.pairs}")

    @property
    def needed(self) -> int:
        """How many pairs have to agree: 3 of 5."""
        return self.pairs // 2 + 1

    def count(self, vote: Vote) -> int:
        """How many pairs say this."""
        return sum(pair.vote == vote for pair in self.found)

    @property
    def decided(self) -> bool:
        """Whether no further pair can change the verdict."""
        left = self.pairs - len(self.found)
        return left <= 0 or all(
            self.count(vote) >= self.needed or self.count(vote) + left < self.needed for vote in ("slower", "faster")
        )

    @property
    def vote(self) -> Vote:
        """What most pairs say."""
        for vote in ("slower", "faster"):
            if self.count(vote) >= self.needed:
                return vote
        return "neither"

    def row(self, name: str, per: float = 1.0) -> Row:
        """The verdict in words.

        Args:
            name: of the workload.
            per: calls that a round makes; times are told for one.
        """
        verdict: dict[Vote, Verdict] = {"slower": "regression", "faster": "improvement", "neither": "same"}
        judged = [pair.judged for pair in self.found]
        ratios = sorted(pair.ratio for pair in judged)
        middle = float(np.median(ratios))
        spread = f" [{ratios[0]:.3f} – {ratios[-1]:.3f}]" if len(ratios) > 1 else ""
        vote = self.vote
        ps = [pair.p_faster if middle < 1 else pair.p_slower for pair in judged]
        agree = self.count(vote)
        by_cpu = all(pair.cpu is held for pair, held in zip(self.found, judged, strict=True))
        shown, clock = (judged, " of CPU time") if by_cpu else (self.found, "")
        typical = [pair.typical for pair in shown]
        return Row(
            "time",
            name,
            verdict[vote],
            number(min(base for base, _ in typical) / per, "s"),
            number(min(head for _, head in typical) / per, "s"),
            f"{middle:.3f}×{spread}",
            f"{agree} of {len(self.found)} pairs {'say so' if vote != 'neither' else 'see no change'}; "
            f"p {', '.join(f'{p:.2g}' for p in ps)}{clock}",
        )


@dataclass(frozen=True)
class Slack:
    """How much more of a counter is still the same amount: relative to the base, and at least so many."""

    relative: float = 0.0
    absolute: float = 0.0
    why: str = ""

    def allows(self, base: float, head: float) -> bool:
        """Whether the difference is within it."""
        return abs(head - base) <= max(self.relative * abs(base), self.absolute)


EXACTLY = Slack()
SLACK = {
    "peak_allocated_bytes": Slack(0.01, 2**20, "cuDNN and cuBLAS may choose another workspace"),
    "gpu_peak_allocated_bytes": Slack(0.01, 2**20, "cuDNN and cuBLAS may choose another workspace"),
    "modules": Slack(0.1, 3, "a few new files are no regression, a new library is"),
}
"""Counters that are not compared exactly, with the reason."""

_NO = "no finite number"
UNITS = {"peak_allocated_bytes": "B", "gpu_peak_allocated_bytes": "B"}


def counter_row(name: str, counter: str, base: float, head: float) -> Row:
    """One deterministic counter; all of them are better when smaller.

    Args:
        name: what the row is called.
        counter: which counter, for its slack and its unit.
        base, head: the counts.
    """
    slack, unit = SLACK.get(counter, EXACTLY), UNITS.get(counter, "")
    if not (math.isfinite(base) and math.isfinite(head)):
        return Row("counter", name, "broken" if math.isfinite(base) else "error", f"{base:g}", f"{head:g}", note=_NO)
    verdict: Verdict = "regression" if head > base else "improvement"
    if slack.allows(base, head):
        verdict = "same"
    told = [number(x, unit) for x in (base, head)]
    if told[0] == told[1] and base != head:
        told = [f"{x:,.12g}" for x in (base, head)]
    sure = "exact" if slack is EXACTLY else f"beyond {slack.relative:.0%}" if verdict != "same" else "within slack"
    return Row("counter", name, verdict, told[0], told[1], change_text(base, head), sure, slack.why)


def change_text(base: float, head: float) -> str:
    """`+3.0 %`, `+1 (+0.4 %)`; empty where nothing changed."""
    if head == base:
        return ""
    share = f"{number(100 * (head / base - 1))} %" if base else ""
    share = f"+{share}" if head > base and share else share
    if abs(head - base) < 1000 and float(head - base).is_integer():
        return f"{head - base:+.0f}" + (f" ({share})" if share else "")
    return share or f"{head - base:+.3g}"


def failed_row(name: str, base: str | None, head: str | None, ran: bool = False) -> Row:
    """A workload that could not be run on one side or on both.

    Args:
        name: of the workload.
        base, head: what it raised there; None where it ran.
        ran: whether the base ran it at another time, so that it is not new.
    """
    first = [None if text is None else (text.strip().splitlines() or ["?"])[-1][:200] for text in (base, head)]
    if base is None:
        return Row("time", name, "broken", "runs", "fails", note=f"head: {first[1]}")
    if head is None and not ran:
        return Row("time", name, "new", "-", "runs", note=f"base: {first[0]}")
    if head is None:
        return Row("time", name, "error", "fails", "runs", note=f"base, which ran it before: {first[0]}")
    return Row("time", name, "error", "fails", "fails", note=f"on both sides: {first[1]}")


def counter_rows(name: str, base: dict[str, float], head: dict[str, float]) -> Sequence[Row]:
    """All counters of a workload; one that only one side has is told."""
    rows = []
    for counter in dict.fromkeys((*head, *base)):
        label = f"{name}: {counter}"
        if counter not in base:
            rows.append(Row("counter", label, "new", "-", number(head[counter], UNITS.get(counter, ""))))
        elif counter not in head:
            rows.append(Row("counter", label, "lost", number(base[counter], UNITS.get(counter, "")), "-"))
        else:
            rows.append(counter_row(label, counter, base[counter], head[counter]))
    return rows
