"""Latency of synthetic samplers of known length, in a time of our own."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from bench.measure.clock import Clock, Effort
from bench.measure.latency import cold_call, latency
from bench.measure.workload import observe


def _latency(bench, workload, **effort):
    _, calls = observe(workload, 1)
    return latency(workload, calls, bench.clock, Effort(**effort))


def test_the_cold_call_is_reported_apart(bench):
    workload = bench.workload(draw_s=0.03, first_s=4.0)
    cold = cold_call(workload, bench.clock)
    warm = _latency(bench, workload)
    assert cold.value("latency_s[cold]") == pytest.approx(4.03)
    assert max(warm.raw["latency_s"]) == pytest.approx(0.03)


def test_a_sampler_of_known_length_reads_back(bench):
    measured = _latency(bench, bench.workload(steps=10, forward_s=0.002, draw_s=0.005))
    for p in ("p50", "p90", "p99"):
        assert measured.value(f"latency_s[{p}]") == pytest.approx(0.025)


def test_the_ratio_to_the_limit_is_what_the_sampler_adds(bench):
    measured = _latency(bench, bench.workload(steps=10, forward_s=0.002, draw_s=0.005))
    assert measured.value("limit_s[b1]") == pytest.approx(10 * 0.002)
    assert measured.value("limit_ratio[b1]") == pytest.approx((10 * 0.002 + 0.005) / (10 * 0.002))


def test_a_slow_spell_of_the_machine_cancels_in_the_ratio(bench):
    workload = bench.workload(steps=10, forward_s=0.002, draw_s=0.005)
    costs, spend = workload.model.costs, bench.time.spend
    # the machine grows slower all the while, threefold in all
    bench.time.spend = lambda s: spend(s * (1 + bench.time.now()))
    measured = _latency(bench, workload, budget_s=2.0, max_reps=10_000)
    walls = measured.raw["latency_s"]
    assert walls[-1] > 2 * walls[0]
    true = 1 + costs.draw_s / (10 * costs.forward_s)
    assert measured.value("limit_ratio[b1]") == pytest.approx(true, rel=0.05)


def test_quantiles_are_numpys_of_the_raw_readings(bench):
    workload = bench.workload(forward_s=0.0001)
    lengths = iter(np.random.default_rng(0).exponential(0.004, size=500))
    sample = workload.model.sample

    def jittery(*args, **kwargs):
        bench.time.spend(next(lengths))
        return sample(*args, **kwargs)

    workload.model.sample = jittery
    measured = _latency(bench, workload)
    raw = measured.raw["latency_s"]
    assert len(raw) > 100
    for p, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert measured.value(f"latency_s[{p}]") == pytest.approx(np.quantile(raw, q))
    assert {m.n for m in measured.measurements} == {len(raw)}


def test_p99_of_few_readings_says_so_and_of_many_does_not(bench):
    few = _latency(bench, bench.workload(draw_s=0.3))
    notes = {m.metric: m.note for m in few.measurements}
    assert "n is small" in notes["latency_s[p99]"]
    many = _latency(bench, bench.workload(draw_s=0.001))
    assert not {m.metric: m.note for m in many.measurements}["latency_s[p99]"]


@pytest.mark.parametrize(("draw_s", "reps"), [(0.3, 5), (1.5, 3), (0.0001, 200)])
def test_repetitions_adapt(bench, draw_s, reps):
    assert len(_latency(bench, bench.workload(draw_s=draw_s, forward_s=1e-6)).raw["latency_s"]) == reps


def test_bare_forwards_take_no_more_time_than_the_draws(bench):
    # of 1000 steps a block of 50 stands for all: the limit of a slow sampler is nearly free
    workload = bench.workload(steps=1000, forward_s=0.002)
    _, calls = observe(workload, 1)
    before = bench.time.now()
    measured = latency(workload, calls, bench.clock)
    spent = bench.time.now() - before
    assert spent == pytest.approx(sum(measured.raw["latency_s"]) * 1.05)
    assert measured.value("limit_ratio[b1]") == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "reason"), [("NoNetwork", "has no network"), ("Growing", "change their shape")])
def test_without_a_limit_the_latency_stands_alone(bench, kind, reason):
    measured = _latency(bench, bench.workload(kind, steps=3, draw_s=0.01, forward_s=0.01))
    assert measured.value("latency_s[p50]") > 0
    assert reason in measured.skipped["limit_ratio[b1]"]
    assert reason in measured.skipped["limit_s[b1]"]


def test_replayed_data_has_no_latency(bench):
    workload = bench.workload("Replayer")
    measured = _latency(bench, workload)
    assert not measured.measurements
    assert "replays data" in measured.skipped["latency_s[p50]"]
    assert "replays data" in cold_call(workload, bench.clock).skipped["latency_s[cold]"]


def test_on_a_cpu_device_time_is_skipped_not_invented(bench):
    measured = _latency(bench, bench.workload(draw_s=0.1))
    assert measured.skipped["latency_device_s[p50]"] == "no GPU"


def test_the_protocol_says_where_the_time_was_taken(bench):
    measured = _latency(bench, bench.workload(draw_s=0.1))
    protocol = measured.measurements[0].protocol
    assert protocol["batch"] == 1
    assert protocol["threads"] == torch.get_num_threads()
    assert protocol["torch"] == torch.__version__
    assert protocol["dtype"] == "float32"
    assert protocol["device"]


def test_a_sampler_that_really_sleeps_reads_at_least_its_sleep(bench):
    workload = bench.workload(steps=2)
    workload.model.net.register_forward_hook(lambda *_: time.sleep(0.01))
    _, calls = observe(workload, 1)
    measured = latency(workload, calls, Clock(torch.device("cpu")), Effort(budget_s=0.0, min_reps=3))
    assert len(measured.raw["latency_s"]) == 3
    assert min(measured.raw["latency_s"]) >= 0.02
    assert min(measured.raw["forward_s[b1]"]) >= 0.01
