"""The birthday estimate on generators of known finite support, and its parts against brute force and simulation."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import poisson

from baselines.types import ImageShape
from bench.metrics.base import Features, Subject
from bench.metrics.birthday import (
    LEAST_PAIRS,
    REAL_PAIRS,
    Birthday,
    first_repeat,
    least_support,
    nearest_distances,
    pairs_within,
    support_of,
)
from bench.metrics.images import Held

SHAPE = ImageShape(1, 4, 4, 256)


class Pixels:
    """Features are the pixels."""

    name = "pixels"

    def identity(self) -> dict[str, Any]:
        return {}

    def extract(self, images: torch.Tensor, levels: int) -> Features:
        return Features(images.flatten(1).double().numpy())


def real_images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def subject_of(samples: torch.Tensor, test: int = 300, train: int | None = 900, seed: int = 0) -> Subject:
    held = Held(real_images(test, 1), SHAPE, "test images", "test")
    learned = None if train is None else Held(real_images(train, 2), SHAPE, "train images", "train")
    generated = Held(samples, SHAPE, "samples")
    return Subject(seed, generated=generated, reference=held, train=learned, extractor=Pixels())


def draws_of(probabilities: NDArray[np.float64], count: int, seed: int) -> torch.Tensor:
    """Samples of a generator that knows as many images as there are probabilities."""
    which = np.random.default_rng(seed).choice(len(probabilities), count, p=probabilities)
    return real_images(len(probabilities), 100 + seed)[torch.from_numpy(which)]


def measured(subject: Subject) -> dict[str, Any]:
    assert Birthday().unavailable(subject) is None
    return {m.metric: m for m in Birthday().measure(subject)}


@pytest.mark.parametrize("support", [3, 40, 300, 3000])
def test_a_generator_of_so_many_equally_likely_images_reads_their_number(support: int) -> None:
    covered, values = 0, []
    reads = 1 / (1 / support + (1 - 1 / support) * REAL_PAIRS / (1200 * 1199 / 2))  # different ones are near as well
    for seed in range(10):
        found = measured(subject_of(draws_of(np.full(support, 1 / support), 1200, seed)))["birthday_support[pixels]"]
        values.append(math.log(found.value))
        covered += found.low <= reads <= found.high
    assert math.exp(float(np.mean(values))) == pytest.approx(reads, rel=0.06)
    assert reads == pytest.approx(support, rel=0.03) or support == 3000
    assert covered >= 9


@pytest.mark.parametrize("support", [40, 300, 1000])
def test_the_batch_is_that_in_which_two_are_alike_with_probability_a_half(support: int) -> None:
    free = np.cumprod(1 - np.arange(200) / support)  # the birthday problem's own formula
    half = 1 + int(np.argmax(free < 0.5))
    even, found = np.full(support, 1 / support), []
    for seed in range(8):
        found.append(measured(subject_of(draws_of(even, 1500, seed)))["birthday_batch[pixels]"].value)
    assert np.mean(found) == pytest.approx(half, rel=0.08)
    s = float(np.mean(found))
    assert s * (s - 1) / (2 * math.log(2)) == pytest.approx(support, rel=0.2), "the paper's square, made exact"


def test_images_that_are_not_equally_likely_read_one_over_the_sum_of_squares() -> None:
    p = np.array([0.5, *[0.5 / 200] * 200])
    found = measured(subject_of(draws_of(p, 1500, 3)))["birthday_support[pixels]"]
    assert found.value == pytest.approx(1 / (p**2).sum(), rel=0.1)
    assert found.value < 4.1, "and say nothing of the other half, as the docstring warns"


def test_one_image_alone_reads_one() -> None:
    found = measured(subject_of(real_images(1, 5).expand(400, *SHAPE.chw)))
    assert found["birthday_support[pixels]"].value == 1
    assert found["birthday_batch[pixels]"].value == 2


def test_equal_distributions_read_what_real_images_read_and_no_more_can_be_told() -> None:
    fresh = subject_of(real_images(1200, 9))
    found = measured(fresh)["birthday_support[pixels]"]
    real = 1200 * 1199 / 2 / REAL_PAIRS
    assert f"real images read {real:.3g}" in found.note
    assert found.low < real < found.high
    assert Birthday().unavailable(subject_of(real_images(1200, 9) // 2 + 64)) is None, "narrower: nearer pairs"


def test_too_few_near_duplicates_give_a_bound_and_no_number() -> None:
    reason = Birthday().unavailable(subject_of(real_images(100, 9)))
    assert reason is not None
    assert f"needs {LEAST_PAIRS}" in reason
    assert "the support is above" in reason


def test_the_bound_is_poissons() -> None:
    for pairs in (0, 1, 7):
        expected = 200 * 199 / 2 / least_support(pairs, 200)
        assert poisson.cdf(pairs, expected) == pytest.approx(0.05, rel=1e-6)


def test_it_does_without_train_images_and_says_how_many_real_ones_it_had() -> None:
    alone = measured(subject_of(draws_of(np.full(20, 0.05), 600, 0), train=None))["birthday_support[pixels]"]
    assert alone.protocol["near"] == f"within the {REAL_PAIRS} nearest pairs of 300 real images"
    assert Birthday().unavailable(subject_of(real_images(20, 0))) is not None


def test_nearest_distances_and_pairs_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((700, 3))
    x[600:] = x[:100]  # exact copies
    every = np.sort(pdist(x, "sqeuclidean"))
    np.testing.assert_allclose(nearest_distances(x, 150), every[:150], atol=1e-9)
    limit = float(every[150] + every[151]) / 2
    found = {tuple(pair) for pair in pairs_within(x, limit).tolist()}
    assert found == {(i, j) for i, j in combinations(range(700), 2) if ((x[i] - x[j]) ** 2).sum() <= limit}
    assert len(pairs_within(x, 0.0)) == 100


def test_the_jackknife_is_that_of_leaving_out_each_sample() -> None:
    rng = np.random.default_rng(1)
    samples = rng.integers(0, 12, 60)
    pairs = np.array([(i, j) for i, j in combinations(range(60), 2) if samples[i] == samples[j]])
    shares = []
    for gone in range(60):
        left = pairs[(pairs != gone).all(1)]
        shares.append(len(left) / (59 * 58 / 2))
    error = math.sqrt(59 / 60 * ((np.array(shares) - np.mean(shares)) ** 2).sum())
    told = support_of(pairs, 60, rng)
    share = len(pairs) / (60 * 59 / 2)
    assert told.value == pytest.approx(1 / share)
    assert math.log(told.high / told.value) == pytest.approx(1.96 * error / share)


def test_the_first_repeat_of_a_collapsed_generator_is_found_in_a_part_of_the_samples() -> None:
    rng = np.random.default_rng(2)
    samples = rng.integers(0, 25, 1200)
    i, j = np.nonzero(np.triu(samples[:, None] == samples, 1))
    pairs = np.stack([i, j], 1)
    assert len(pairs) > 5000, "the premise"
    free = np.cumprod(1 - np.arange(25) / 25)
    assert first_repeat(pairs, 1200, rng) == pytest.approx(1 + int(np.argmax(free < 0.5)), abs=1)


def test_the_order_of_the_samples_changes_nothing() -> None:
    samples = draws_of(np.full(50, 0.02), 500, 1)
    one, other = (measured(subject_of(x))["birthday_support[pixels]"] for x in (samples, samples.flip(0)))
    assert (one.value, one.low) == (other.value, pytest.approx(other.low))
