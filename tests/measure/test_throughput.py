"""Throughput: timing changes no image, draws none twice without need, and reads back known rates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from baselines.contract import GenerativeModel, Given, HasDensity, HasLikelihood, ImageShape, Nats, Noise
from bench.measure.clock import Effort
from bench.measure.density import likelihood_speed
from bench.measure.throughput import draw_samples, throughput


@pytest.mark.parametrize("batch", [1, 3, 4, 10, 64])
def test_the_samples_are_those_of_plain_sampling_whatever_the_batch(bench, batch):
    workload = bench.workload(steps=3, draw_s=0.2)
    samples, _ = draw_samples(workload, 10, batch, bench.clock)
    assert torch.equal(samples, workload.images(10))
    assert (samples.dtype, samples.device.type) == (torch.uint8, "cpu")
    assert len(samples.unique()) > 3  # the premise: there is something to confuse


def test_conditions_follow_their_images_through_the_batches(bench):
    given = Given(labels=torch.arange(7) - 3)
    workload = bench.workload(given=given, draw_s=0.2)
    samples, _ = draw_samples(workload, 10, 4, bench.clock)
    noise = workload.noise
    for i in range(10):
        alone = workload.model.sample(1, workload.draw, noise.at(i), Given(labels=given.labels[i % 7, None]))
        assert torch.equal(samples[i : i + 1], alone.detach())


def test_the_rate_reads_back(bench):
    _, measured = draw_samples(bench.workload(steps=5, draw_s=0.1, image_s=0.01), 64, 16, bench.clock)
    assert measured.value("images_per_s") == pytest.approx(16 / (0.1 + 16 * 0.01))


def test_the_first_batch_warms_up_and_is_not_timed(bench):
    _, measured = draw_samples(bench.workload(draw_s=1.0, first_s=30.0), 40, 10, bench.clock)
    assert measured.value("images_per_s") == pytest.approx(10.0)
    assert measured.raw["batch_s"] == pytest.approx([1.0] * 2)  # the second was watched for memory


def test_a_first_batch_in_which_something_is_built_is_no_speed(bench):
    plain = bench.workload(draw_s=1.0, first_s=30.0)
    _, measured = draw_samples(plain, 10, 10, bench.clock)
    assert measured.value("images_per_s") == pytest.approx(10 / 31), "the premise: one slow batch is not repeated"
    fresh = bench.workload(draw_s=1.0, first_s=30.0)
    compiled = replace(fresh, draw=replace(fresh.draw, options={"compile": True}))
    _, measured = draw_samples(compiled, 10, 10, bench.clock)
    assert measured.value("images_per_s") == pytest.approx(10.0)


def test_a_partial_last_batch_does_not_lower_the_rate(bench):
    _, measured = draw_samples(bench.workload(draw_s=1.0), 41, 10, bench.clock)
    assert measured.value("images_per_s") == pytest.approx(10.0)
    assert measured.raw["batch_s"] == pytest.approx([1.0] * 2)  # of four full batches, one warmed up, one for memory


def test_a_long_run_draws_each_image_once(bench):
    workload = bench.workload(steps=100, forward_s=0.01)
    draw_samples(workload, 40, 10, bench.clock)
    assert workload.model.log == [(10, 0), (10, 10), (10, 20), (10, 30)]


def test_memory_has_a_warm_pass_whose_images_are_kept(bench):
    workload = bench.workload(draw_s=1.0)
    tensors = []
    workload.model.net.register_forward_hook(
        lambda *_: tensors.append(torch.ones(50_000_000 * (len(workload.model.log) == 2), dtype=torch.uint8))
    )
    samples, measured = draw_samples(workload, 40, 10, bench.clock)
    assert measured.value("host_peak_bytes") == pytest.approx(50e6, rel=0.05)  # of the second batch alone
    assert workload.model.log == [(10, 0), (10, 10), (10, 20), (10, 30)]
    assert torch.equal(samples, workload.images(40))


def test_a_short_run_repeats_until_the_time_is_reached(bench):
    workload = bench.workload(draw_s=0.01, forward_s=0.001)
    _, measured = draw_samples(workload, 20, 10, bench.clock, Effort(budget_s=0.5, min_reps=3))
    walls = measured.raw["batch_s"]
    assert measured.value("images_per_s") == pytest.approx(10 / 0.011)
    assert 0.4 < sum(walls) < 0.6
    [speed] = [m for m in measured.measurements if m.metric == "images_per_s"]
    assert speed.low == pytest.approx(10 / 0.011)  # enough batches for an interval


def test_one_slow_batch_is_timed_once_and_says_that_it_was_not_warm(bench):
    workload = bench.workload(steps=1000, forward_s=0.01)
    _, measured = draw_samples(workload, 10, 100, bench.clock)
    assert workload.model.log == [(10, 0), (10, 0)]  # once more for memory
    assert measured.value("images_per_s") == pytest.approx(1.0)
    [speed] = [m for m in measured.measurements if m.metric == "images_per_s"]
    assert "no warm-up" in speed.note
    assert speed.protocol["batch"] == 10


def test_the_large_batch_has_its_own_limit(bench):
    _, measured = draw_samples(bench.workload(steps=10, forward_s=0.02, image_s=0.01), 40, 10, bench.clock)
    assert measured.value("limit_s[large]") == pytest.approx(0.2)
    assert measured.value("limit_ratio[large]") == pytest.approx(1.5)


def test_a_model_without_network_is_timed_without_a_limit(bench):
    workload = bench.workload("NoNetwork", draw_s=1.0)
    _, measured = draw_samples(workload, 30, 10, bench.clock)
    assert measured.value("images_per_s") == pytest.approx(10.0)
    assert measured.skipped["limit_ratio[large]"] == "has no network"
    assert workload.model.log == [(10, 0), (10, 10), (10, 20)]


def test_replayed_data_is_drawn_but_not_timed(bench):
    workload = bench.workload("Replayer", draw_s=0.001)
    samples, measured = draw_samples(workload, 25, 10, bench.clock)
    assert torch.equal(samples, workload.images(25))
    assert not measured.measurements
    assert "replays data" in measured.skipped["images_per_s"]


def test_a_dedicated_run_reads_the_same_rate(bench):
    workload = bench.workload(steps=4, forward_s=0.01, draw_s=0.01)
    _, drawn = draw_samples(workload, 40, 10, bench.clock)
    assert throughput(workload, 10, bench.clock).value("images_per_s") == pytest.approx(drawn.value("images_per_s"))


def test_progress_counts_every_image(bench):
    told = []
    draw_samples(bench.workload(draw_s=1.0), 35, 10, bench.clock, progress=lambda *step: told.append(step))
    assert told == [("sampling", done, 35) for done in (10, 20, 30, 35)]


class Likely(GenerativeModel, HasLikelihood):
    likelihoods = {"exact": "exact", "vlb": "upper_bound"}  # noqa: RUF012 - as models do

    def __init__(self, time, call_s=0.0, image_s=0.0):
        super().__init__()
        self.shape, self.time, self.call_s, self.image_s = ImageShape(1, 2, 2, 4), time, call_s, image_s

    def sample(self, n, draw, noise, given=None):
        raise NotImplementedError

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        self.time.spend((self.call_s + len(x) * self.image_s) * (1 if name == "exact" else 100))
        return Nats(torch.ones(len(x)))


class Flow(GenerativeModel, HasDensity):
    def __init__(self):
        super().__init__()
        self.shape, self.log_scale = ImageShape(1, 2, 2, 4), nn.Parameter(torch.zeros(()))

    def sample(self, n, draw, noise, given=None):
        raise NotImplementedError

    def log_density(self, y: Tensor) -> Tensor:
        return -(y.flatten(1) ** 2).sum(1) * self.log_scale.exp()


IMAGES = torch.zeros(300, 1, 2, 2, dtype=torch.uint8)


def test_each_likelihood_reads_its_own_rate_at_the_large_batch(bench):
    measured = likelihood_speed(Likely(bench.time, 1e-3, 1e-6), IMAGES, Noise(0), 250, bench.clock)
    assert measured.value("likelihood_images_per_s[exact]") == pytest.approx(250 / (1e-3 + 250e-6))
    assert {m.protocol["batch"] for m in measured.measurements if "exact" in m.metric} == {250}
    assert {m.scope for m in measured.measurements} == {"train"}


def test_a_likelihood_with_a_price_a_call_is_timed_at_a_batch_that_shares_it(bench):
    measured = likelihood_speed(Likely(bench.time, 0.01, 1e-5), IMAGES, Noise(0), 250, bench.clock)
    slow = measured.measurements[1]  # vlb: 1 s a call and 1 ms an image
    assert slow.metric == "likelihood_images_per_s[vlb]"
    assert slow.value == pytest.approx(250 / 1.25)


def test_a_slow_likelihood_gets_a_smaller_batch_that_is_said(bench):
    measured = likelihood_speed(Likely(bench.time, 0, 1e-3), IMAGES, Noise(0), 250, bench.clock)
    slow = measured.measurements[1]
    assert slow.value == pytest.approx(10)
    assert slow.protocol["batch"] < 250
    assert "largest batch" in slow.note


def test_a_very_slow_likelihood_is_called_once(bench):
    measured = likelihood_speed(Likely(bench.time, 0, 0.2), IMAGES, Noise(0), 250, bench.clock)
    assert measured.value("likelihood_images_per_s[vlb]") == pytest.approx(1 / 20)
    assert measured.measurements[1].n == 1
    assert bench.time.now() < 20 + 5


def test_a_flow_is_timed_in_its_density_direction(bench):
    ticking = iter(range(10**6))
    clock = type(bench.clock)(torch.device("cpu"), lambda: next(ticking) * 0.005)  # each reading 5 ms later
    measured = likelihood_speed(Flow(), IMAGES, Noise(0), 100, clock)
    assert measured.value("likelihood_images_per_s[dequantised]") == pytest.approx(100 / 0.005)


def test_without_a_likelihood_there_is_a_reason(bench):
    model = bench.workload().model
    measured = likelihood_speed(model, IMAGES, Noise(0), 100, bench.clock)
    assert measured.skipped == {"likelihood_images_per_s": "the model has no likelihood"}
