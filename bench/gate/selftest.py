"""The gate measures itself: how often it alarms on unchanged code, and how often it sees a slowdown that was planted.

Both sides are the same tree. The planted slowdown is more of the workload's own work, not sleep: rounds of 20 n calls
on the base and 23 n on the head are 15 % more of exactly the same. Everything goes through `pairs.measure`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy.special import ndtri

from bench import provenance
from bench.gate import pairs as timing
from bench.gate.outcome import PAIRS, Outcome, Row
from bench.gate.pairs import Planted, Timed, Told
from bench.gate.process import Job
from bench.gate.rule import LEAST_RATIO, MOST_P, Pair
from bench.gate.trees import Trees
from bench.stats import CONFIDENCE

EXTRA = 0.15
TRIALS = 40


@dataclass
class Rate:
    """How often something was seen, with its Wilson interval (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212)."""

    hits: int = 0
    trials: int = 0

    def add(self, hit: bool) -> None:
        """One trial more."""
        self.hits, self.trials = self.hits + hit, self.trials + 1

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, within [0, 1]; all of it without a trial."""
        return wilson(self.hits, self.trials)

    @property
    def text(self) -> str:
        """`39 of 40, 95 % interval 87.1 – 99.6 %`."""
        low, high = self.interval
        return f"{self.hits} of {self.trials}, 95 % interval {100 * low:.1f} – {100 * high:.1f} %"


@dataclass
class SelfTest:
    """All trials of one run."""

    names: tuple[str, ...]
    extra: float
    pairs: int
    trials: list[dict[str, list[dict[str, float]]]] = field(default_factory=list)  # label -> pairs
    alarms: dict[str, Rate] = field(default_factory=dict)  # unchanged code, by workload
    found: dict[str, Rate] = field(default_factory=dict)  # the planted slowdown, by workload
    any_alarm: Rate = field(default_factory=Rate)  # of all workloads of a trial
    failures: list[str] = field(default_factory=list)
    load: list[float] = field(default_factory=lambda: [_load()])

    def add(self, timed: Sequence[Timed]) -> None:
        """One trial: unchanged and planted workloads from the same processes."""
        trial, alarmed = {}, False
        for t in timed:
            if t.failed:
                self.failures.append(f"{t.work.label}: {next(iter(t.failed.values())).strip().splitlines()[-1]}")
                continue
            slower = t.tally.vote == "slower"
            rates = self.found if t.work.extra else self.alarms
            rates.setdefault(t.work.name, Rate()).add(slower)
            alarmed |= slower and not t.work.extra
            trial[t.work.label] = [_kept(pair) for pair in t.tally.found]
        self.any_alarm.add(alarmed)
        self.trials.append(trial)
        self.load.append(_load())

    def outcome(self, seconds: float) -> Outcome:
        """The rates as rows; a gate that does not keep its word fails."""
        rows = []
        for what, rates, good in (
            ("false alarms on unchanged code", self.alarms, _few),
            (f"found at +{self.extra:.0%}", self.found, _most),
        ):
            for name, r in {**rates, "all": pooled(rates)}.items():
                rows.append(Row("time", f"{what}: {name}", "same" if good(r) else "regression", sure=r.text))
        rows.append(Row("time", "false alarms of a whole run", "trend", sure=self.any_alarm.text))
        rows += [Row("time", text, "broken") for text in self.failures]
        note = (
            f"Rule: in most of {self.pairs} pairs of processes both the ratio > {LEAST_RATIO} and the rank-sum test's "
            f"p < {MOST_P}, by wall or by CPU time. {len(self.trials)} trials of {len(self.names)} workloads."
        )
        title = f"self-test of the gate: the same code on both sides, as it is and with {self.extra:.0%} more work"
        return Outcome(title, tuple(rows), (note,), seconds)

    def as_json(self, seconds: float) -> dict[str, Any]:
        """The record: rates, every trial's ratios and p values, and what it was taken with."""
        rates = {
            "false_alarms": self.alarms | {"all": pooled(self.alarms), "any of a run": self.any_alarm},
            "found": self.found | {"all": pooled(self.found)},
        }
        return {
            "schema": 1,
            "rule": {"pairs": self.pairs, "least_ratio": LEAST_RATIO, "most_p": MOST_P, "rounds": timing.ROUNDS},
            "extra": self.extra,
            **{
                what: {n: {"hits": r.hits, "trials": r.trials, "interval": r.interval} for n, r in held.items()}
                for what, held in rates.items()
            },
            "trials": self.trials,
            "failures": self.failures,
            "seconds": round(seconds),
            "load": self.load,  # processes that wanted a core, one minute's mean: at the beginning and in each trial
            "provenance": provenance.collect(),
        }


def _load() -> float:
    return round(os.getloadavg()[0], 1)


def _kept(pair: Pair) -> dict[str, float]:
    clocks = {"": pair} | ({} if pair.cpu is None else {"cpu_": pair.cpu})
    plain: dict[str, float] = {"waits": pair.waits}
    for name, held in clocks.items():
        plain |= {f"{name}ratio": round(held.ratio, 4), f"{name}p": float(f"{held.p_slower:.2g}")}
    return plain


def _few(alarms: Rate) -> bool:
    return alarms.hits <= alarms.trials / 40


def _most(found: Rate) -> bool:
    return found.hits >= found.trials * 39 / 40


def pooled(rates: dict[str, Rate]) -> Rate:
    """All workloads together."""
    return Rate(sum(r.hits for r in rates.values()), sum(r.trials for r in rates.values()))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The score interval of a share at 95 %."""
    if trials == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + CONFIDENCE / 2))
    share, n = hits / trials, trials
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def run(
    tree: Path, job: Job, trials: int = TRIALS, pairs: int = PAIRS, extra: float = EXTRA, told: Told | None = None
) -> SelfTest:
    """So many trials on one tree against itself; Ctrl-C ends it with the trials that are done."""
    trees = Trees(tree, tree)
    names = timing.names(trees, job)
    work = [Planted(name, share) for name in names for share in (0.0, extra)]
    test = SelfTest(tuple(names), extra, pairs)
    for i in range(trials):
        if told is not None:
            alarms, found = pooled(test.alarms), pooled(test.found)
            told(f"trial {i + 1} of {trials}; so far {alarms.hits} alarms, {found.hits} of {found.trials} found")
        try:
            test.add(timing.measure(trees, job, work, pairs))
        except KeyboardInterrupt:
            if not test.trials:
                raise
            break  # what was measured is told
    return test
