"""When rounds of a base and a head count as slower: synthetic times, and simulations of busy machines."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, rankdata

from bench.gate.outcome import PAIRS
from bench.gate.pairs import abba, cores, plan
from bench.gate.ranks import aligned_p
from bench.gate.rule import LEAST_RATIO, MOST_P, Pair, Tally, counter_row, counter_rows, failed_row
from bench.report.numbers import number

Times = NDArray[np.float64]


def rounds(seed: int, n: int = 30, spread: float = 0.02) -> Times:
    return 1e-3 * np.random.default_rng(seed).lognormal(0, spread, n)


def pair(base: Times, head: Times, turns: bool = False) -> Pair:
    return Pair(tuple(base), tuple(head), turns=turns)


def busy(rng: np.random.Generator, n: int) -> Times:
    """Factors of 2n consecutive rounds on a machine with others on it: a drifting speed, interruptions."""
    drift, level = np.empty(2 * n), 0.0
    for i in range(2 * n):
        level = 0.95 * level + rng.normal(0, 0.06)  # autocorrelated: spells of about 20 rounds
        drift[i] = abs(level)
    interrupted = rng.random(2 * n) < 0.3
    return np.exp(drift) * (1 + interrupted * rng.exponential(1.0, 2 * n))


def busy_pair(rng: np.random.Generator, slower: float, n: int = 150) -> Pair:
    factors = busy(rng, n)
    order = list(abba("base", n))
    base = factors[[i for i, side in enumerate(order) if side == "base"]]
    head = factors[[i for i, side in enumerate(order) if side == "head"]]
    return pair(base, head * slower, turns=True)


@pytest.mark.parametrize(
    ("factor", "vote"), [(1.0, "neither"), (1.05, "neither"), (1.15, "slower"), (2.0, "slower"), (1 / 1.15, "faster")]
)
def test_a_known_shift_is_seen_beyond_seven_percent_only(factor: float, vote: str) -> None:
    times = rounds(0, spread=0.001)
    assert pair(times, rounds(1, spread=0.001) * factor).vote == vote


def test_both_conditions_are_needed() -> None:
    base = np.linspace(1.0, 2.0, 30)
    only_minimum = base.copy()
    only_minimum[0] = 1.2  # the fastest round alone is slower ...
    only_minimum = np.sort(np.maximum(only_minimum, 1.1))
    found = pair(base, only_minimum)
    assert found.ratio > LEAST_RATIO
    assert found.p_slower > MOST_P
    assert found.vote == "neither"
    shifted = base + 0.5
    shifted[0] = 1.0  # ... or all but the fastest are
    found = pair(base, shifted)
    assert found.p_slower < MOST_P
    assert found.ratio == 1
    assert found.vote == "neither"


def test_p_is_that_of_the_rank_sum_counted_by_hand() -> None:
    """U = (pairs where head is slower); without ties and with few rounds its null distribution is enumerated."""
    from itertools import combinations

    base, head = np.array([1.0, 2.0, 3.0, 5.0, 8.0]), np.array([4.0, 6.0, 7.0, 9.0, 10.0])
    ranks = rankdata(np.concatenate([base, head]))[5:].sum()
    sums = [sum(held) for held in combinations(range(1, 11), 5)]
    exact = np.mean([s >= ranks for s in sums])
    assert pair(base, head).p_slower == pytest.approx(exact)
    assert math.comb(8, 4) < 1 / MOST_P <= math.comb(10, 5), "so that 5 rounds can tell and 4 never could"


def spells(rng: np.random.Generator, n: int, slower: float) -> tuple[Times, Times]:
    """A machine that changes its speed every five rounds, as virtual ones do beside busy neighbours."""
    speed = np.repeat(rng.lognormal(0, 0.5, n // 5), 5)
    return speed * rng.lognormal(0, 0.03, n), slower * speed * rng.lognormal(0, 0.03, n)


def test_rounds_in_turns_tell_through_spells_what_pooled_rounds_do_not() -> None:
    rng = np.random.default_rng(2)
    found = [spells(rng, 40, 1.12) for _ in range(50)]
    assert sum(pair(*times).vote == "slower" for times in found) < 25, "the premise: pooled, they drown"
    assert all(pair(*times, turns=True).vote == "slower" for times in found)
    assert not any(pair(*spells(rng, 40, 1.0), turns=True).vote == "slower" for _ in range(50))
    with pytest.raises(ValueError, match="in turns: expected as many rounds, got 40 and 39"):
        pair(found[0][0], found[0][1][1:], turns=True)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_aligned_p_is_that_of_all_exchanges_written_out(n: int) -> None:
    from itertools import combinations, product

    rng = np.random.default_rng(n)
    for ties in (False, True):
        base, head = (rng.integers(1, 4, n) if ties else rng.lognormal(0, 1, n) for _ in range(2))
        blocks = [np.log([*base[i : i + 2], *head[i : i + 2]]) for i in range(0, n, 2)]
        ranks = rankdata(np.round(np.concatenate([x - np.median(x) for x in blocks]), 12))
        split = np.split(ranks, np.cumsum([len(x) for x in blocks])[:-1])
        found = sum(x[len(x) // 2 :].sum() for x in split)
        sums = [sum(map(sum, chosen)) for chosen in product(*(combinations(x, len(x) // 2) for x in split))]
        assert aligned_p(base, head) == pytest.approx(np.mean([s >= found - 1e-9 for s in sums]))


def test_the_aligned_p_of_one_block_is_mann_whitneys_and_is_uniform_whatever_the_spells() -> None:
    rng = np.random.default_rng(3)
    base, head = rng.lognormal(0, 1, 7), rng.lognormal(0.5, 1, 7)
    exact = mannwhitneyu(head, base, alternative="greater", method="exact").pvalue
    assert aligned_p(base, head, block=7) == pytest.approx(exact)
    found = np.array([aligned_p(*spells(rng, 30, 1.0)) for _ in range(1500)])
    for level in (0.01, 0.05, 0.3):
        assert np.mean(found <= level) <= level + 3 * math.sqrt(level / 1500)
    assert abs(np.mean(found) - 0.5) < 0.04


def test_too_few_rounds_or_impossible_times_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 5 rounds or more, got 4"):
        pair(np.ones(5), np.ones(4))
    with pytest.raises(ValueError, match="expected times above 0"):
        pair(np.ones(5), np.zeros(5))


SLOW, FAST = pair(rounds(0), 1.3 * rounds(1)), pair(1.3 * rounds(0), rounds(1))
SAME = pair(rounds(0, spread=0.001), rounds(1, spread=0.001))


def test_cpu_time_counts_where_wall_time_tells_nothing_and_the_work_computes() -> None:
    rng = np.random.default_rng(0)
    steady = pair(rounds(0), 1.2 * rounds(1))
    noisy = pair(rounds(2) * rng.uniform(1, 9, 30), rounds(3) * rng.uniform(1, 9, 30))
    assert noisy.vote == "neither"
    assert steady.vote == "slower"
    assert replace(noisy, cpu=steady).vote == "slower"
    row = Tally(1, [replace(noisy, cpu=steady)]).row("x")
    assert "CPU time" in row.sure
    assert (row.base, row.head) == (number(min(steady.base), "s"), number(min(steady.head), "s")), "what was judged"
    assert number(min(noisy.head), "s") != row.head, "the premise"
    waits = pair(rounds(0) / 10, 1.2 * rounds(1) / 10)  # a tenth of the time computes: 20 % more of it is no matter
    assert waits.vote == "slower"
    assert replace(noisy, cpu=waits).vote == "neither"
    assert replace(FAST, cpu=SLOW).vote == "faster", "wall time is what a user waits"
    assert replace(SLOW, cpu=SAME, waits=True).vote == "slower", "waiting is slower too"
    assert replace(SLOW, cpu=SAME, waits=False).vote == "neither", "it never waited: others had the core"
    assert replace(SAME, cpu=SLOW, waits=False).vote == "slower"


@given(st.lists(st.sampled_from([SLOW, FAST, SAME]), min_size=PAIRS, max_size=PAIRS))
def test_stopping_early_never_changes_the_verdict(found: list[Pair]) -> None:
    whole = Tally(PAIRS, found)
    for n in range(1, PAIRS):
        early = Tally(PAIRS, found[:n])
        if early.decided:
            assert early.vote == whole.vote
    votes = [p.vote for p in found]
    assert whole.decided
    expected = next((v for v in ("slower", "faster") if votes.count(v) > PAIRS / 2), "neither")
    assert whole.vote == expected


def test_two_equal_votes_end_it_and_two_different_ones_do_not() -> None:
    assert Tally(3, [SLOW, SLOW]).decided
    assert Tally(3, [SAME, SAME]).decided
    assert not Tally(3, [SLOW, SAME]).decided
    assert not Tally(3, [SLOW]).decided
    assert Tally(1, [SLOW]).vote == "slower"
    with pytest.raises(ValueError, match="odd"):
        Tally(2)


def test_rows_say_what_how_much_and_how_sure() -> None:
    row = Tally(3, [SLOW, SAME, SLOW]).row("draw vae", per=10)
    assert row.verdict == "regression"
    assert "2 of 3 pairs" in row.sure
    assert row.change.startswith(f"{SLOW.ratio:.3f}×")
    assert Tally(3, [FAST, FAST]).row("x").verdict == "improvement"
    assert Tally(3, [SAME, SAME]).row("x").verdict == "same"


def test_unchanged_code_on_a_busy_machine_raises_no_alarm_where_a_median_does() -> None:
    rng = np.random.default_rng(0)
    alarms = medians = 0
    for _ in range(300):
        found = [busy_pair(rng, 1.0) for _ in range(PAIRS)]
        alarms += Tally(PAIRS, found).vote == "slower"
        stored = busy(rng, 75)  # the same code, measured some other day
        medians += bool(np.median(found[0].head) > 1.1 * np.median(stored))
    assert medians > 9, "the premise: this noise fools a stored median"
    assert alarms <= 1


def test_fifteen_percent_on_a_busy_machine_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [Tally(PAIRS, [busy_pair(rng, 1.15, 60) for _ in range(PAIRS)]).vote == "slower" for _ in range(80)]
    assert np.mean(found) >= 0.975


@given(st.integers(0, 10_000))
def test_exchanging_the_sides_exchanges_the_votes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = 1e-3 * rng.lognormal(0, 0.1, 20), 1e-3 * rng.lognormal(rng.normal(0, 0.2), 0.1, 20)
    opposite = {"slower": "faster", "faster": "slower", "neither": "neither"}
    assert pair(b, a).vote == opposite[pair(a, b).vote]
    assert pair(a, b).p_slower == pytest.approx(mannwhitneyu(a, b, alternative="less").pvalue)


def test_both_sides_of_a_pair_share_a_core_and_pairs_change_it() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert cores("cpu") == allowed
    assert cores("cuda") == [None], "a GPU's driver has threads of its own"


def test_the_turns_are_abba_and_balance_a_drift() -> None:
    assert list(abba("base", 4)) == ["base", "head", "head", "base", "base", "head", "head", "base"]
    assert next(iter(abba("head", 4))) == "head"
    turns = list(abba("base", 10))
    places = {side: [i for i, turn in enumerate(turns) if turn == side] for side in ("base", "head")}
    assert sum(places["base"]) == sum(places["head"]), "a linear drift costs both the same"


@pytest.mark.parametrize("once_s", [1e-6, 1e-4, 1e-2, 0.1, 10.0])
def test_the_plan_keeps_rounds_enough_for_the_test_and_plants_exactly(once_s: float) -> None:
    loops, same, n = plan(once_s)
    assert same == loops >= 1
    assert n >= 8
    base, head, _ = plan(once_s, 0.15)
    assert head == pytest.approx(1.15 * base, rel=1e-12)


def test_a_counter_that_differs_by_one_is_seen() -> None:
    assert counter_row("x", "flops", 10**9, 10**9 + 1).verdict == "regression"
    assert counter_row("x", "nfe", 50, 49).verdict == "improvement"
    row = counter_row("x", "parameters", 305_777, 305_778)
    assert (row.verdict, row.base, row.head) == ("regression", "305,777", "305,778"), "digits enough to see it"
    assert counter_row("x", "parameters", 7, 7).verdict == "same"


def test_peak_memory_and_modules_have_their_slack_and_no_more() -> None:
    gib = 2**30
    assert counter_row("x", "peak_allocated_bytes", gib, 1.009 * gib).verdict == "same"
    assert counter_row("x", "peak_allocated_bytes", gib, 1.011 * gib).verdict == "regression"
    assert counter_row("x", "peak_allocated_bytes", 1000, 1000 + 2**20).verdict == "same"
    assert counter_row("x", "modules", 100, 110).verdict == "same"
    assert counter_row("x", "modules", 100, 111).verdict == "regression"


def test_counters_of_one_side_alone_are_told() -> None:
    found = {row.name: row.verdict for row in counter_rows("draw", {"nfe": 1, "old": 2}, {"nfe": 1, "fresh": 3})}
    assert found == {"draw: nfe": "same", "draw: fresh": "new", "draw: old": "lost"}


def test_work_that_fails_is_new_broken_or_untold() -> None:
    assert failed_row("w", "Traceback\nImportError: no vae", None).verdict == "new"
    broken = failed_row("w", None, "Traceback\nValueError: boom")
    assert broken.verdict == "broken"
    assert "ValueError: boom" in broken.note
    assert failed_row("w", "a", "b").verdict == "error"
    assert failed_row("w", "Traceback\nMemoryError", None, ran=True).verdict == "error", "it is not new"


def test_a_counter_that_is_no_number_never_passes() -> None:
    assert counter_row("x", "nfe", 5, math.nan).verdict == "broken"
    assert counter_row("x", "nfe", 5, -math.inf).verdict == "broken"
    assert counter_row("x", "nfe", math.nan, 5).verdict == "error"
