"""Times the contenders of a contest in turns, with each one's peak memory, and says how far their answers agree.

Machines have slow spells, so a ratio is taken within a round, where the contenders follow each other; every other round
runs backwards, so that none always follows the same one. The interval is that of the median by order statistics, which
assumes nothing about how times are distributed (David & Nagaraja 2003, "Order Statistics", 7.1). What contenders print
is dropped, and rubbish that one leaves is collected before the next begins.
"""

from __future__ import annotations

import gc
import io
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import binom
from threadpoolctl import threadpool_limits

from bench.measure.memory import HostPeak, host_peak
from bench.peers import book
from bench.peers.contest import Agreement, Contender, Contest, FromChild, version

Told = Callable[[str], None]

LONG_S = 10.0
"""Seconds of a warm-up round from which on the round that watches memory is timed as well, to save a round."""

LEVEL = 0.95


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median with 95 % or more.

    Args:
        values: independent, at least one.

    Returns:
        Low and high; NaN, NaN with fewer than six values, since even their extremes hold it with less.
    """
    n, ordered = len(values), sorted(values)
    cut = int(binom.ppf((1 - LEVEL) / 2, n, 0.5))  # so many may be left out at each end
    while cut >= 0 and 1 - 2 * binom.cdf(cut - 1, n, 0.5) < LEVEL:
        cut -= 1
    return (ordered[cut - 1], ordered[n - cut]) if cut >= 1 else (math.nan, math.nan)


def run(contest: Contest, tell: Told = lambda text: None) -> book.Race:
    """Race a contest: one round to warm up and for the answers, one for memory, then the timed ones.

    A peer that raises an error at any time is out of the race, and its row says so; ours must not fail.

    Args:
        contest: what is done.
        tell: is told which round begins.
    """
    peers = list(contest.peers)
    race = _Running(contest.ours, [contest.ours, *peers])
    with _threads(contest.threads), quiet():
        spent = 0.0
        if contest.warm:
            tell("warm-up")
            begin = time.perf_counter()  # not the contenders' seconds, which those of a share of the work exceed
            race.round()
            spent = time.perf_counter() - begin
        both = not contest.warm or spent > LONG_S
        if not both:
            tell("memory")
            race.round(memory=True)
        race.seconds = {contender.name: [] for contender in race.runners}
        for i in range(contest.rounds):
            tell(f"round {i + 1} of {contest.rounds}")
            race.round(memory=both and i == 0, backwards=i % 2 == 1)
    return book.Race(
        work=contest.name,
        group=contest.group,
        ours=contest.ours.name,
        note=contest.ours.note,
        seconds=tuple(race.seconds[contest.ours.name]),
        peak_bytes=race.peaks[contest.ours.name],
        threads=contest.threads,
        rows=tuple(_row(contest, peer, race) for peer in peers),
    )


@dataclass
class _Running:
    """The contenders that are still in the race, and what is known of them."""

    ours: Contender
    runners: list[Contender]
    answers: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    peaks: dict[str, int | None] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def round(self, memory: bool = False, backwards: bool = False) -> None:
        """Everybody does the work once."""
        for contender in list(reversed(self.runners) if backwards else self.runners):
            try:
                self._once(contender, memory)
            except Exception as error:  # a peer's bug is a finding about the peer
                if contender is self.ours:
                    raise
                self.broken[contender.name] = f"{type(error).__name__}: {error}"[:500]
                self.runners.remove(contender)

    def _once(self, contender: Contender, memory: bool) -> None:
        gc.collect()

        def timed() -> tuple[Any, float]:
            begin = time.perf_counter()
            return contender.work(), time.perf_counter() - begin

        if memory:
            (answer, seconds), peak = host_peak(timed)
            rise = peak.rise_bytes if isinstance(peak, HostPeak) else None
            self.peaks[contender.name] = answer.peak_bytes if isinstance(answer, FromChild) else rise
        else:
            answer, seconds = timed()
        self.answers.setdefault(contender.name, answer)
        self.seconds.setdefault(contender.name, []).append(seconds / contender.share)


def _row(contest: Contest, peer: Contender, race: _Running) -> book.Row:
    about: dict[str, Any] = {"peer": peer.name, "package": peer.package, "note": peer.note}
    about["version"] = version(peer.package)
    if peer.name in race.broken:
        return book.Row(**about, error=race.broken[peer.name])
    own, theirs = race.seconds[contest.ours.name], race.seconds[peer.name]
    ratios = [their / our for their, our in zip(theirs, own, strict=True)]
    low, high = median_interval(ratios)
    compare = contest.agree.get(peer.name)
    agreement = compare(race.answers[contest.ours.name], race.answers[peer.name]) if compare else None
    return book.Row(
        **about,
        seconds=tuple(theirs),
        peak_bytes=race.peaks[peer.name],
        ratio=statistics.median(ratios),
        low=None if math.isnan(low) else low,
        high=None if math.isnan(high) else high,
        agreement=None if agreement is None else _plain(agreement),
    )


def _plain(agreement: Agreement) -> book.Agreement:
    return book.Agreement(
        measure=agreement.measure,
        found=agreement.found if math.isfinite(agreement.found) else None,
        allowed=agreement.allowed,
        expected=agreement.expected,
        holds=bool(agreement.holds),
    )


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """So many threads of torch and of the linear algebra; one means one core, whatever somebody starts.

    Threads and processes inherit the core from who starts them. Which one it is hangs on this process's id, so that
    two races do not share it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    if n == 1 and cores:
        os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
    try:
        with threadpool_limits(n):
            yield
    finally:
        torch.set_num_threads(before)
        if cores:
            os.sched_setaffinity(0, cores)


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that contenders print or warn of is shown: terminals are slow, and some print much."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
