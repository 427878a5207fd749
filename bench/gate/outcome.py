"""What the gate found: a row a thing compared, and what follows from all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Group = Literal["time", "counter", "quality", "cell"]
PAIRS = 5
"""Pairs of processes unless told otherwise; processes of the same code differ in how their memory lies, in small
matrices by 5 %, so that one pair tells too little."""

Verdict = Literal[
    "regression",  # worse, by the rule
    "broken",  # worked on the base, fails on the head
    "lost",  # measured on the base, on the head no more
    "error",  # fails on both sides, or on the base that had run it: nothing was compared
    "accepted",  # one of these, which somebody wanted
    "improvement",
    "same",
    "unclear",  # the rule cannot tell
    "suspect",  # worse by its own interval, but not when all comparisons are counted
    "refused",  # measured under other conditions: not comparable
    "new",  # only on the head
    "gone",  # only on the base, and not asked for on the head
    "trend",  # told, never judged
]

WORSE: frozenset[Verdict] = frozenset({"regression", "broken", "lost"})
"""What the head made worse: exit status 1."""
FAILING: frozenset[Verdict] = WORSE | {"error"}
"""What makes the gate fail; an error alone with exit status 2, since nothing is known to be worse."""

ORDER: tuple[Verdict, ...] = (
    *("regression", "broken", "lost", "error", "accepted", "suspect", "refused", "unclear"),
    *("improvement", "new", "gone", "trend", "same"),
)
"""The order in which rows are shown."""


@dataclass(frozen=True)
class Row:
    """One thing that was compared, in words that are ready to print."""

    group: Group
    name: str
    verdict: Verdict
    base: str = ""
    head: str = ""
    change: str = ""  # by how much
    sure: str = ""  # how sure
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """All rows, what was compared, and remarks on the whole."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # the rule, what was left out, what could not be read
    seconds: float = 0.0

    @property
    def failing(self) -> tuple[Row, ...]:
        """The rows that make it fail."""
        return tuple(row for row in self.rows if row.verdict in FAILING)

    @property
    def exit_code(self) -> int:
        """0: nothing got worse; 1: something did; 2: something could not be compared, and the rest is no worse."""
        verdicts = {row.verdict for row in self.rows}
        return 1 if verdicts & WORSE else 2 if verdicts & FAILING else 0

    def accepting(self, wanted: Iterable[str]) -> Outcome:
        """The same with those failing rows accepted whose name holds one of these.

        wanted: part of a row's name each, perhaps with a reason after a semicolon: `train vae; a deeper encoder`.
        """
        named = [(name.strip(), reason.strip()) for name, _, reason in (text.partition(";") for text in wanted)]

        def accepted(row: Row) -> Row:
            reasons = [reason for name, reason in named if name and name in row.name]
            if row.verdict not in FAILING or not reasons:
                return row
            return replace(row, verdict="accepted", note="; ".join(filter(None, (row.verdict, *reasons, row.note))))

        return replace(self, rows=tuple(map(accepted, self.rows)))

    @property
    def verdict(self) -> str:
        """One sentence."""
        counts = Counter(row.verdict for row in self.rows)
        told = ", ".join(f"{counts[v]} {v}" for v in ORDER if counts[v])
        if not self.rows:
            return "PASS: nothing to compare"
        return f"{'FAIL' if self.failing else 'PASS'}: {told}"

    def sorted_rows(self) -> list[Row]:
        """What failed first, what did not move last; within that as they were compared."""
        return sorted(self.rows, key=lambda row: ORDER.index(row.verdict))
