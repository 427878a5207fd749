"""Times the contenders of a contest in turns, with each one's peak memory, and says how far their answers agree.

Machines have slow spells, so a ratio is taken within a round, where the contenders follow each other; every other round
runs backwards, so that none always follows the same one. The interval is that of the median by order statistics, which
assumes nothing about how times are distributed (David & Nagaraja 2003, "Order Statistics", 7.1).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from scipy.stats import binom
from threadpoolctl import threadpool_limits

from bench.measure.memory import HostPeak, host_peak
from bench.peers.book import Race, Row
from bench.peers.contest import Contender, Contest, FromChild, version

Told = Callable[[str], None]

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


def run(contest: Contest, tell: Told = lambda text: None) -> Race:
    """Race a contest: one round to warm up and for the answers, one for memory, then the timed ones.

    A peer that raises an error is out of the race, and its row says so; ours must not fail.

    Args:
        contest: what is done.
        tell: is told which round begins.
    """
    with _threads(contest.threads):
        answers, broken = _warm_up(contest, tell)
        runners = [c for c in (contest.ours, *contest.peers) if c.name not in broken]
        tell("memory")
        peaks = {c.name: _peak(c) for c in runners}
        seconds = _seconds(runners, contest.rounds, tell)
    own = seconds[contest.ours.name]
    rows = []
    for peer in contest.peers:
        about = {"peer": peer.name, "package": peer.package, "version": version(peer.package), "note": peer.note}
        if peer.name in broken:
            rows.append(Row(**about, error=broken[peer.name]))
            continue
        ratios = [theirs / ours for theirs, ours in zip(seconds[peer.name], own, strict=True)]
        low, high = median_interval(ratios)
        compare = contest.agree.get(peer.name)
        agreement = compare(answers[contest.ours.name], answers[peer.name]) if compare else None
        rows.append(
            Row(
                **about,
                seconds=tuple(seconds[peer.name]),
                peak_bytes=peaks[peer.name],
                ratio=statistics.median(ratios),
                low=None if math.isnan(low) else low,
                high=None if math.isnan(high) else high,
                agreement=None if agreement is None else _plain(agreement),
            )
        )
    return Race(
        work=contest.name,
        group=contest.group,
        ours=contest.ours.name,
        note=contest.ours.note,
        seconds=tuple(own),
        peak_bytes=peaks[contest.ours.name],
        threads=contest.threads,
        rows=tuple(rows),
    )


def _plain(agreement: Any) -> dict[str, Any]:
    return {
        "measure": agreement.measure,
        "found": agreement.found if math.isfinite(agreement.found) else None,
        "allowed": agreement.allowed,
        "expected": agreement.expected,
        "holds": bool(agreement.holds),
    }


def _warm_up(contest: Contest, tell: Told) -> tuple[dict[str, Any], dict[str, str]]:
    tell(f"warm-up: {contest.ours.name}")
    answers, broken = {contest.ours.name: contest.ours.work()}, {}
    for peer in contest.peers:
        tell(f"warm-up: {peer.name}")
        try:
            answers[peer.name] = peer.work()
        except Exception as error:  # a peer's bug is a finding about the peer
            broken[peer.name] = f"{type(error).__name__}: {error}"[:500]
    return answers, broken


def _peak(contender: Contender) -> int | None:
    answer, peak = host_peak(contender.work)
    if isinstance(answer, FromChild):
        return answer.peak_bytes
    return peak.rise_bytes if isinstance(peak, HostPeak) else None


def _seconds(runners: Sequence[Contender], rounds: int, tell: Told) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {c.name: [] for c in runners}
    for i in range(rounds):
        tell(f"round {i + 1} of {rounds}")
        for contender in runners if i % 2 == 0 else reversed(runners):
            begin = time.perf_counter()
            contender.work()
            seconds[contender.name].append((time.perf_counter() - begin) / contender.share)
    return seconds


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n):
            yield
    finally:
        torch.set_num_threads(before)
