"""All of one draw: the order of the passes, their cost, and that nothing is lost between them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from bench.measure.draw import draw_untimed, measure_draw
from bench.measure.result import Measured, merge
from bench.record import Measurement

EXPECTED = {
    "latency_s[cold]",
    "latency_s[p50]",
    "latency_s[p90]",
    "latency_s[p99]",
    "limit_s[b1]",
    "limit_ratio[b1]",
    "nfe",
    "flops[forward]",
    "flops[image]",
    "images_per_s",
    "limit_s[large]",
    "limit_ratio[large]",
}
GPU = {"latency_device_s[p50]", "gpu_peak_allocated_bytes", "gpu_peak_reserved_bytes", "gpu_process_bytes"}


def test_every_figure_is_measured_or_has_a_reason(bench):
    _, measured = measure_draw(bench.workload(steps=4, forward_s=0.01), 30, 10, bench.clock)
    taken = {m.metric for m in measured.measurements}
    assert taken >= EXPECTED
    assert set(measured.skipped) >= GPU
    assert not taken & set(measured.skipped)
    assert {m.scope for m in measured.measurements} == {"draw"}
    json.dumps([asdict(m) for m in measured.measurements])


def test_the_samples_are_those_of_plain_sampling(bench):
    workload = bench.workload(steps=4, forward_s=0.01)
    samples, _ = measure_draw(workload, 23, 10, bench.clock)
    assert torch.equal(samples, workload.images(23))


def test_the_cold_call_is_the_models_first(bench):
    _, measured = measure_draw(bench.workload(draw_s=0.1, first_s=7.0), 30, 10, bench.clock)
    assert measured.value("latency_s[cold]") == pytest.approx(7.1)
    assert max(measured.raw["latency_s"] + measured.raw["batch_s"]) == pytest.approx(0.1)


def test_a_cheap_sampler_is_measured_in_a_second_and_a_half(bench):
    measure_draw(bench.workload(forward_s=0.001, draw_s=0.001), 100, 50, bench.clock)
    assert bench.time.now() < 1.6


def test_a_slow_sampler_is_drawn_five_times_alone_and_each_sample_once(bench):
    workload = bench.workload(steps=1000, forward_s=0.002)
    measure_draw(workload, 40, 10, bench.clock)
    cold_warm_and_latency = [(1, 0), (1, 0), (1, 0), (1, 1), (1, 2)]
    assert workload.model.log == [*cold_warm_and_latency, (10, 0), (10, 10), (10, 20), (10, 30)]


def test_replayed_data_gives_its_images_and_no_speed(bench):
    workload = bench.workload("Replayer")
    samples, measured = measure_draw(workload, 12, 5, bench.clock)
    assert torch.equal(samples, workload.images(12))
    assert not measured.measurements
    assert set(measured.skipped) >= EXPECTED


def test_merging_refuses_a_metric_measured_twice():
    part = Measured((Measurement("nfe", 1, "", "lower", 1, "draw"),))
    with pytest.raises(ValueError, match="nfe twice"):
        merge((part, part))
    with pytest.raises(KeyError, match="no GPU"):
        Measured(skipped={"x": "no GPU"}).value("x")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x[:-1], r"expected uint8 \(1, 1, 4, 4\), got torch.uint8 \(0, 1, 4, 4\)"),
        (lambda x: x.float(), "got torch.float32"),
        (lambda x: x.flatten(1), r"got torch.uint8 \(1, 16\)"),
        (lambda x: x + 100, "expected levels 0 .. 15, got"),
        (lambda x: x.numpy(), "got ndarray"),
    ],
)
@pytest.mark.parametrize("timed", [True, False])
def test_samples_that_are_not_what_the_contract_says_are_refused(bench, spoil, told, timed):
    workload = bench.workload(draw_s=0.1)
    sample = workload.model.sample
    workload.model.sample = lambda *args: spoil(sample(*args))

    def draw():
        return measure_draw(workload, 8, 4, bench.clock) if timed else draw_untimed(workload, 1, 1, lambda *_: None)

    with pytest.raises(ValueError, match=told):
        draw()
