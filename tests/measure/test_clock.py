"""The clock reads what was spent, and the statistics are those of numpy and scipy."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import quantile_test

from bench.measure.clock import Clock, Effort, few, quantile

CPU = torch.device("cpu")


def test_a_call_of_known_length_reads_back_exactly(bench):
    result, timing = bench.clock.time(lambda: bench.time.spend(0.125) or "drawn")
    assert (result, timing.wall_s, timing.device_s) == ("drawn", 0.125, None)


def test_a_real_sleep_reads_at_least_its_length():
    _, timing = Clock(CPU).time(lambda: time.sleep(0.02))
    assert 0.02 <= timing.wall_s < 2


def test_queued_work_is_waited_for(bench, monkeypatch):
    # a device that only queues: the call returns at once, and synchronising spends what was queued
    queue = [0.5]  # work of someone else, queued before the call, must not be counted

    def synchronize(device=None):
        bench.time.spend(sum(queue))
        queue.clear()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = bench.time.now() + sum(queue)

        def elapsed_time(self, end):
            return 1e3 * (end.at - self.at)

    fake = SimpleNamespace(synchronize=synchronize, Event=Event, device=lambda d: contextlib.nullcontext())
    monkeypatch.setattr(torch, "cuda", fake)
    _, timing = Clock(torch.device("cuda"), bench.time.now).time(lambda: queue.append(0.25))
    assert timing.wall_s == pytest.approx(0.25)
    assert timing.device_s == pytest.approx(0.25)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [1, 3, 5, 6, 29, 200, 500])
def test_quantile_is_numpys_and_its_interval_scipys(n, q):
    values = np.random.default_rng(n).exponential(size=n)
    value, low, high = quantile(list(values), q)
    assert value == pytest.approx(np.quantile(values, q))
    # scipy's two-sided interval at 95 %; its end is NaN or infinite where n is too small for one
    found = quantile_test(values, q=0, p=q).confidence_interval(0.95)
    for ours, theirs in ((low, found.low), (high, found.high)):
        assert ours == theirs if np.isfinite(theirs) else ours is None


def test_the_median_interval_needs_six_values_and_covers():
    assert quantile([1.0] * 5, 0.5)[1:] == (None, None)
    rng = np.random.default_rng(0)
    hits = [
        low <= np.log(2) <= high for _, low, high in (quantile(list(rng.exponential(size=30)), 0.5) for _ in range(400))
    ]
    assert np.mean(hits) > 0.93


@pytest.mark.parametrize(("n", "q", "warns"), [(99, 0.99, True), (100, 0.99, False), (9, 0.9, True), (10, 0.9, False)])
def test_few_warns_below_one_value_beyond_the_quantile(n, q, warns):
    assert bool(few(n, q)) is warns


def _repetitions(effort, each_s):
    walls = []
    while not effort.enough(walls, len(walls) * each_s):
        walls.append(each_s)
    return len(walls)


@pytest.mark.parametrize(
    ("each_s", "expected"),
    [(0.0001, 200), (0.01, 100), (0.5, 5), (1.0, 5), (1.01, 3), (60.0, 3)],
    ids=["the cap", "the time", "the least", "not yet slow", "slow", "very slow"],
)
def test_repetitions_adapt_to_the_length_of_a_call(each_s, expected):
    assert _repetitions(Effort(), each_s) == pytest.approx(expected, abs=1 if expected == 100 else 0)
