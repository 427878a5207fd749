"""Quality from records: paired differences against scipy, what cannot be compared, many comparisons, counters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from baselines.errors import UserError
from baselines.types import Budget, Draw
from bench import store
from bench.gate.outcome import Outcome, Row
from bench.gate.quality import ALPHA, Compared, difference, holm, judge, same_protocol
from bench.gate.records import compare
from bench.record import Cell, Measurement, Record, Status

PROTOCOL = {"split": "test", "version": 1}


def fd(value: float, low: float | None = None, high: float | None = None, **protocol: Any) -> Measurement:
    return Measurement("fd[cnn]", value, "", "lower", 100, "draw", low, high, protocol=PROTOCOL | protocol)


def coverage(value: float, low: float | None = None, high: float | None = None, n: int = 100) -> Measurement:
    return Measurement("coverage[cnn]", value, "", "higher", n, "draw", low, high, protocol=PROTOCOL)


def bits(value: float, low: float | None = None, high: float | None = None) -> Measurement:
    return Measurement("bits_per_dim[exact]", value, "bits/dim", "lower", 9, "train", low, high, "exact", PROTOCOL)


def compared(old: Sequence[Measurement], new: Sequence[Measurement]) -> Compared:
    return Compared("vae-digits: m", old, new)


def test_the_interval_and_p_are_those_of_scipys_paired_t_on_logarithms() -> None:
    old, new = [2.0, 2.2, 1.9, 2.4], [2.6, 2.5, 2.4, 2.9]
    found = difference(compared([fd(v) for v in old], [fd(v) for v in new]))
    theirs = scipy_stats.ttest_rel(np.log(new), np.log(old))
    interval = theirs.confidence_interval(0.95)
    assert found.scale == "log"
    assert found.low_high == pytest.approx((interval.low, interval.high))
    one_sided = scipy_stats.ttest_1samp(np.log(new) - np.log(old), 0.02, alternative="greater")
    assert found.p_worse == pytest.approx(one_sided.pvalue)
    assert found.base == pytest.approx(scipy_stats.gmean(old))


def test_higher_is_better_turns_the_sign_and_shares_are_compared_plainly() -> None:
    found = difference(compared([coverage(v) for v in (0.9, 0.8, 0.85)], [coverage(v) for v in (0.7, 0.65, 0.66)]))
    assert found.scale == "share"
    assert found.worse == pytest.approx(np.mean([0.2, 0.15, 0.19]))
    row = judge([found])[0]
    assert row.verdict == "regression"
    assert row.change.startswith("-0.18"), "told with the metric's own sign"


def test_one_seed_has_the_measurements_own_intervals_or_none() -> None:
    z = scipy_stats.norm.ppf(0.975)
    found = difference(compared([bits(2.0, 1.97, 2.03)], [bits(2.1, 2.06, 2.14)]))
    assert found.error == pytest.approx(math.hypot(0.03, 0.04) / z)
    assert found.low_high == pytest.approx((0.05, 0.15))
    assert judge([found])[0].verdict == "regression"
    row = judge([difference(compared([coverage(0.9)], [coverage(0.2)]))])[0]
    assert row.verdict == "unclear"
    assert "no interval" in row.sure


def test_two_seeds_that_differ_by_the_same_count_of_images_prove_nothing() -> None:
    """Shares of 500 images are multiples of .002: without a difference, two seeds often move alike to the digit."""
    rng = np.random.default_rng(0)
    alarms, alike, runs = 0, 0, 100
    for _ in range(runs):
        values = np.rint(500 * rng.normal(0.8, 0.02, (30, 2, 2))) / 500
        sides = [[[coverage(float(v), n=500) for v in side] for side in pair] for pair in values]
        found = [difference(compared(old, new)) for old, new in sides]
        moves = np.diff(values, axis=1)[:, 0]
        alike += bool((np.abs(moves[:, 0] - moves[:, 1]) < 1e-9)[moves.mean(1) < -0.01].any())
        alarms += any(row.verdict == "regression" for row in judge(found))
    assert alike > 5, "the premise: a standard deviation of 0 by chance, beyond the tolerance"
    assert alarms <= runs * ALPHA + 3 * math.sqrt(runs * ALPHA)
    all_alike = difference(compared([coverage(0.9, n=500)] * 2, [coverage(0.4, n=500)] * 2))
    assert judge([all_alike])[0].verdict == "regression", "half of all images is no matter of rounding"


def test_an_interval_that_is_clipped_at_one_is_not_taken_for_a_narrow_one() -> None:
    z = scipy_stats.norm.ppf(0.975)
    free, clipped = coverage(0.9, 0.88, 0.92), coverage(0.99, 0.97, 1.0)
    found = difference(compared([clipped], [free]))
    assert found.error == pytest.approx(math.hypot(0.03, 0.02) / z), "the upper half was cut off"
    full = difference(compared([coverage(1.0, 1.0, 1.0)], [coverage(0.98, 0.96, 1.0)]))
    assert full.error is not None
    assert full.error > 0.04 / z


def test_equal_numbers_are_equal_with_any_number_of_seeds() -> None:
    for n in (1, 3):
        row = judge([difference(compared([coverage(0.9)] * n, [coverage(0.9)] * n))])[0]
        assert (row.verdict, row.sure) == ("same", "equal")


def test_differences_within_the_tolerance_are_no_regression_however_sure() -> None:
    old = [2.0, 2.2, 1.9]
    inside = difference(compared([fd(v) for v in old], [fd(1.015 * v) for v in old]))
    beyond = difference(compared([fd(v) for v in old], [fd(1.03 * v) for v in old]))
    assert judge([inside])[0].verdict == "same"
    assert judge([beyond])[0].verdict == "regression"
    better = difference(compared([fd(v) for v in old], [fd(0.9 * v) for v in old]))
    assert judge([better])[0].verdict == "improvement"


def test_holm_is_the_step_down_written_out() -> None:
    """Against Holm's adjusted p, p_(i) times (m - i + 1) made monotone."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        ps = list(rng.uniform(0, 0.1, 6) ** 2)
        order = np.argsort(ps)
        adjusted = np.maximum.accumulate([(6 - i) * ps[j] for i, j in enumerate(order)])
        expected = [False] * 6
        for i, j in enumerate(order):
            expected[j] = bool(adjusted[i] <= ALPHA)
        assert holm(ps) == expected
    assert holm([None, 0.001, None]) == [False, True, False], "what has no p does not count"


def test_of_many_comparisons_without_a_difference_none_alarms_and_single_intervals_do() -> None:
    rng = np.random.default_rng(0)
    runs = alarmed = suspects = 0
    for _ in range(200):
        found = [
            difference(compared([bits(v) for v in rng.normal(2, 0.1, 3)], [bits(v) for v in rng.normal(2.01, 0.1, 3)]))
            for _ in range(30)
        ]
        verdicts = [row.verdict for row in judge(found)]
        runs += 1
        alarmed += "regression" in verdicts
        suspects += verdicts.count("suspect") + verdicts.count("regression")
    assert suspects > 0.5 * ALPHA * 30 * runs, "the premise: uncorrected, one in forty alarms"
    assert alarmed <= runs * ALPHA + 3 * math.sqrt(runs * ALPHA), "corrected, one run in forty"


def test_protocols_that_differ_are_named() -> None:
    assert same_protocol(fd(1.0), fd(2.0)) == ""
    assert same_protocol(fd(1.0), fd(1.0, split="train")) == 'split: "test" against "train"'
    assert "version" in same_protocol(fd(1.0), fd(1.0, version=2))
    assert same_protocol(fd(1.0, subject={"clip": True}), fd(1.0, subject={"clip": False})) == "", "of the row"
    more = Measurement("fd[cnn]", 1.0, "", "lower", 200, "draw", protocol=PROTOCOL)
    assert "n: 100 against 200" in same_protocol(fd(1.0), more), "N belongs to it"


def record(
    seed: int, *measured: Measurement, status: Status = "ok", model: str = "vae", skipped: dict[str, str] | None = None
) -> Record:
    cell = Cell(model, "digits", Budget(images=100), seed, {"lr": 0.1}, Draw())
    error = "" if status == "ok" else "ValueError: boom"
    return Record(f"{model}{seed}", "t", status, cell, measured, skipped or {}, error=error)


def folder(tmp_path: Path, name: str, *records: Record) -> Path:
    for held in records:
        store.append(tmp_path / name, held)
    return tmp_path / name


def count(metric: str, value: float) -> Measurement:
    return Measurement(metric, value, "", "lower", 1, "draw", protocol={"version": 1})


def latency(value: float, threads: int = 1) -> Measurement:
    return Measurement("latency_s[p50]", value, "s", "lower", 1, "draw", protocol={"threads": threads})


def rows_of(outcome: Outcome) -> dict[str, Row]:
    return {row.name: row for row in outcome.rows}


def test_two_folders_seed_by_seed(tmp_path: Path) -> None:
    seeds = range(3)
    old = [record(s, fd(2 + 0.1 * s), count("nfe", 50), count("flops[image]", 1e9), latency(1.0)) for s in seeds]
    new = [record(s, fd(3 + 0.1 * s), count("nfe", 50), count("flops[image]", 1e9 + 1), latency(2.0)) for s in seeds]
    outcome = compare(folder(tmp_path, "old", *old), folder(tmp_path, "new", *new))
    rows = rows_of(outcome)
    quality = rows["vae-digits, native: fd[cnn]"]
    assert quality.verdict == "regression"
    assert "3 seeds, paired t" in quality.sure
    assert rows["vae-digits, native: flops[image], seed 1"].verdict == "regression"
    assert rows["vae-digits, native: nfe, seed 1"].verdict == "same"
    assert rows["latency_s[p50]"].verdict == "trend", "twice the time, but of another moment"
    assert rows["latency_s[p50]"].change.startswith("2")
    assert outcome.exit_code == 1
    assert compare(tmp_path / "old", tmp_path / "old").exit_code == 0
    back = rows_of(compare(tmp_path / "new", tmp_path / "old"))
    assert back["vae-digits, native: fd[cnn]"].verdict == "improvement"


def test_what_vanished_failed_or_came_is_told(tmp_path: Path) -> None:
    old = [record(0, fd(2.0, 1.9, 2.1), coverage(0.9)), record(1, fd(2.0)), record(2, fd(2.0))]
    new = [
        record(0, fd(2.0, 1.9, 2.1), skipped={"coverage": "no room"}),
        record(1, status="timeout"),
        record(5, fd(2.0)),
    ]
    rows = rows_of(compare(folder(tmp_path, "old", *old), folder(tmp_path, "new", *new)))
    lost = rows["vae-digits, native: coverage[cnn], seed 0"]
    assert (lost.verdict, lost.note) == ("lost", "no room")
    broken = rows["vae-digits, native seed 1"]
    assert (broken.verdict, broken.note) == ("broken", "ValueError: boom")
    assert rows["vae-digits, native seed 2"].verdict == "gone"
    assert rows["vae-digits, native seed 5"].verdict == "new"


def test_other_protocols_are_refused_and_never_compared_silently(tmp_path: Path) -> None:
    old = folder(tmp_path, "old", record(0, fd(2.0), count("nfe", 5), latency(1.0)))
    new = folder(tmp_path, "new", record(0, fd(9.0, split="train"), count("nfe", 5), latency(9.0, threads=2)))
    with pytest.raises(UserError, match=r"expected scores .* got none that can be compared; 1 metrics"):
        compare(old, new)  # equal counters say nothing of quality
    for place, value in ((old, 0.9), (new, 0.9)):
        store.append(place, record(0, coverage(value), model="gan"))
    outcome = compare(old, new)
    rows = rows_of(outcome)
    assert rows["vae-digits, native: fd[cnn]"].verdict == "refused"
    assert 'split: "test" against "train"' in rows["vae-digits, native: fd[cnn]"].note
    assert not any(row.verdict == "trend" for row in outcome.rows)
    assert any("1 times and peaks were taken under other conditions" in note for note in outcome.notes)
    only = folder(tmp_path, "only", record(0, fd(9.0, split="train")))
    with pytest.raises(UserError, match=r"got none that can be compared; 1 metrics .* other protocols"):
        compare(old, only, select="fd")


def test_what_is_lost_fails_though_nothing_else_is_left(tmp_path: Path) -> None:
    old = folder(tmp_path, "old", record(0, fd(2.0)))
    assert compare(old, folder(tmp_path, "new", record(0, skipped={"fd": "no room"}))).exit_code == 1


def test_a_run_that_was_not_finished_is_told(tmp_path: Path) -> None:
    old = folder(tmp_path, "old", record(0, fd(2.0)), record(1, fd(2.0)))
    new = folder(tmp_path, "new", record(0, fd(2.0)))
    store.write_run(new, {"matrix": "m", "keys": ["vae0", "vae1"], "families": {}})
    assert any("new: 1 cells of its matrix have no record" in note for note in compare(old, new).notes)
    assert not any("have no record" in note for note in compare(new, old).notes)


def test_select_and_all_metrics_choose_what_is_judged(tmp_path: Path) -> None:
    other = Measurement("kid[cnn]", 0.1, "", "lower", 100, "draw", 0.05, 0.15, protocol=PROTOCOL)
    old = folder(tmp_path, "old", record(0, fd(2.0), other), record(0, fd(2.0), model="gan"))
    assert {r.name for r in compare(old, old).rows} == {"vae-digits, native: fd[cnn]", "gan-digits, native: fd[cnn]"}
    assert "vae-digits, native: kid[cnn]" in rows_of(compare(old, old, every=True))
    assert {r.name for r in compare(old, old, select="gan").rows} == {"gan-digits, native: fd[cnn]"}
    with pytest.raises(UserError, match="whose name holds 'nobody', got none"):
        compare(old, old, select="nobody")


def test_missing_empty_and_newer_folders_are_bad_input(tmp_path: Path) -> None:
    old = folder(tmp_path, "old", record(0, fd(2.0)))
    with pytest.raises(UserError, match="expected a folder with records"):
        compare(old, tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected records"):
        compare(old, tmp_path / "empty")
    newer = folder(tmp_path, "newer", record(0, fd(2.0)))
    for shard in (newer / "records").iterdir():
        shard.write_text(shard.read_text().replace('"schema": 1', '"schema": 99', 1))
    with pytest.raises(UserError, match="99"):
        compare(old, newer)
    with pytest.raises(UserError, match="in common"):
        compare(old, folder(tmp_path, "others", record(0, fd(2.0), model="gan")))
