"""How contenders are timed: order, memory, intervals, and what a broken one does."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.peers import race
from bench.peers.contest import FromChild
from tests.peers.made_up import apart, contender, contest


def inside(n: int, cut: int) -> float:
    """P(the median lies between the cut-th lowest and highest of n), by counting how many of n lie below it."""
    return sum(math.comb(n, k) for k in range(cut, n - cut + 1)) / 2**n


@pytest.mark.parametrize("n", range(1, 41))
def test_the_interval_is_the_narrowest_pair_of_order_statistics_that_holds_the_median_often_enough(n: int) -> None:
    low, high = race.median_interval([float(x) for x in np.random.default_rng(n).permutation(n) + 1])
    if n < 6:
        assert inside(n, 1) < 0.95, "the premise: even the extremes are too few"
        assert math.isnan(low)
        assert math.isnan(high)
        return
    cut = round(low)
    assert high == n + 1 - cut, "as many are left out at each end"
    assert inside(n, cut) >= 0.95
    assert inside(n, cut + 1) < 0.95, "the next narrower pair would not do"


def test_the_interval_holds_the_median_of_skewed_times_as_often_as_counting_says() -> None:
    draws = np.random.default_rng(0).lognormal(size=(4000, 9))
    held = np.mean([low <= 1 <= high for low, high in map(race.median_interval, draws.tolist())])
    expected = inside(9, 2)
    assert held == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))


def logging(log: list[str], name: str) -> Callable[[], str]:
    def work() -> str:
        log.append(name)
        return name

    return work


def test_every_other_round_runs_backwards_after_a_warm_up_and_one_for_memory() -> None:
    log: list[str] = []
    peers = [contender(name, logging(log, name)) for name in "bc"]
    found = race.run(contest(*peers, ours=contender("a", logging(log, "a")), rounds=3))
    assert "".join(log) == "abc" + "abc" + "abc" + "cba" + "abc"
    assert [len(row.seconds) for row in found.rows] == [3, 3]
    assert len(found.seconds) == 3


def test_without_a_warm_up_the_first_timed_round_gives_answers_and_memory() -> None:
    log: list[str] = []
    peer = contender("b", logging(log, "b"))
    ours = contender("a", logging(log, "a"))
    found = race.run(contest(peer, ours=ours, rounds=2, warm=False, agree={"b": lambda a, b: apart(len(a + b))(a, b)}))
    assert "".join(log) == "abba"
    assert found.rows[0].agreement is not None
    assert found.rows[0].agreement.found == 2
    assert len(found.rows[0].seconds) == 2


def test_long_work_is_timed_in_the_round_that_watches_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "LONG_S", 0.0)
    log: list[str] = []
    found = race.run(contest(contender("b", logging(log, "b")), ours=contender("a", logging(log, "a")), rounds=2))
    assert "".join(log) == "ab" + "ab" + "ba"
    assert len(found.seconds) == 2


def test_a_share_is_long_by_what_it_takes_and_not_by_what_the_whole_would(monkeypatch: pytest.MonkeyPatch) -> None:
    now, watched = [0.0], []
    monkeypatch.setattr("bench.peers.race.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(race, "host_peak", lambda call: (watched.append(len(log)), (call(), "unknown"))[1])
    log: list[str] = []

    def takes(seconds: float) -> None:
        log.append("")
        now[0] += seconds

    part = contender("part", lambda: takes(race.LONG_S / 4), share=0.01)
    race.run(contest(part, ours=contender("ours", lambda: takes(race.LONG_S / 4)), rounds=2))
    assert watched == [2, 3], "after the warm-up, in a round of its own"
    assert len(log) == 2 * (1 + 1 + 2)


def fails_at(call: int) -> Callable[[], float]:
    calls = iter(range(1000))

    def work() -> float:
        if next(calls) == call:
            raise RuntimeError("no such thing")
        return 1.0

    return work


@pytest.mark.parametrize("call", range(4))
def test_a_peer_that_breaks_at_any_time_is_a_row_that_says_so_and_the_others_go_on(call: int) -> None:
    found = race.run(contest(contender("broken", fails_at(call)), contender("sound"), rounds=2))
    broken, sound = found.rows
    assert broken.error == "RuntimeError: no such thing"
    assert broken.ratio is None
    assert broken.verdict == "failed"
    assert sound.error is None
    assert len(sound.seconds) == 2


def test_an_error_of_ours_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        race.run(contest(contender("theirs"), ours=contender("ours", fails_at(2))))


def test_seconds_of_a_share_of_the_work_are_those_of_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]  # a clock that the work winds

    def takes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("bench.peers.race.time.perf_counter", lambda: now[0])
    whole = contender("whole", lambda: takes(0.04))
    part = contender("part", lambda: takes(0.01), share=0.25)
    found = race.run(contest(part, ours=whole, rounds=3))
    assert found.rows[0].ratio == pytest.approx(1)


def test_a_spike_of_memory_is_seen_and_what_a_child_took_is_its_own() -> None:
    def spike() -> float:
        return float(np.ones(8 << 20).sum())  # 64 MiB

    child = contender("child", lambda: FromChild("", 12345))
    found = race.run(contest(child, contender("small"), ours=contender("spike", spike)))
    assert found.rows[0].peak_bytes == 12345
    if sys.platform == "linux":
        assert found.peak_bytes == pytest.approx(64 << 20, rel=0.05)
        assert found.rows[1].peak_bytes is not None
        assert found.rows[1].peak_bytes < 8 << 20


def test_contenders_have_one_core_and_print_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def work() -> None:
        print("much")
        print("more", file=sys.stderr)
        seen.append((torch.get_num_threads(), len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1))

    before = torch.get_num_threads(), os.sched_getaffinity(0) if sys.platform == "linux" else None
    race.run(contest(contender("theirs", work)))
    assert set(seen) == {(1, 1)}
    assert before == (torch.get_num_threads(), os.sched_getaffinity(0) if sys.platform == "linux" else None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("found", "holds", "kept"), [(0.05, True, 0.05), (0.5, False, 0.5), (math.nan, False, None)])
def test_agreement_is_judged_by_what_is_allowed_and_nan_agrees_with_nothing(
    found: float, holds: bool, kept: float | None
) -> None:
    row = race.run(contest(contender("theirs"), agree={"theirs": apart(found)})).rows[0]
    assert row.agreement is not None
    assert (row.agreement.holds, row.agreement.found) == (holds, kept)


def test_names_shares_and_agreements_must_make_sense() -> None:
    with pytest.raises(ValueError, match="names of their own"):
        contest(contender("ours"))
    with pytest.raises(ValueError, match="takes no part"):
        contest(contender("theirs"), agree={"nobody": apart(0)})
    with pytest.raises(ValueError, match="expected a share"):
        contest(contender("theirs", share=0.0))
