"""Mode count and class divergence against constructed logits, scipy's entropy and simulated coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import entropy
from torch import Tensor

from baselines.types import ImageShape
from bench.metrics.base import Features, Subject
from bench.metrics.images import Held
from bench.metrics.modes import (
    ModeDivergence,
    Modes,
    bootstrap_divergences,
    class_counts,
    expected_modes,
    histogram_divergence,
)
from bench.stats import reflected_interval


@dataclass
class Reader:
    """Reads the class off an image's only pixel."""

    classes: int = 4
    name: str = "reader"

    def identity(self) -> dict[str, Any]:
        return {}

    def extract(self, images: Tensor, levels: int) -> Features:
        pixels = images.flatten().numpy()
        return Features(pixels[:, None].astype(float), np.eye(self.classes)[pixels])


def subject_of(real: list[int], samples: list[int], classes: int = 4, stratified: bool = False) -> Subject:
    """Real images and samples with so many of each class."""

    def held(counts: list[int], what: str) -> Held:
        pixels = np.repeat(np.arange(len(counts)), counts)
        images = torch.from_numpy(pixels.astype(np.uint8)).view(-1, 1, 1, 1)
        return Held(images, ImageShape(1, 1, 1, 16), what, "test", pixels, stratified)

    return Subject(
        0, generated=held(samples, "samples"), reference=held(real, "test images"), extractor=Reader(classes)
    )


def test_classes_with_a_sample_are_counted() -> None:
    logits = np.array([[0.1, 3, 2], [9, 8, 7], [0, 1, 0], [5, 5, 4]])  # a tie goes to the first
    assert class_counts(logits).tolist() == [2, 2, 0]
    (found,) = Modes().measure(subject_of([20, 20, 20, 20], [50, 0, 1, 30]))
    assert (found.metric, found.value, found.n, found.better) == ("modes[reader]", 3, 81, "higher")
    assert (found.low, found.high) == (None, None)
    assert "of 4 classes" in found.note


def test_the_expected_number_is_that_of_independent_samples(rng: np.random.Generator) -> None:
    real = np.array([50, 30, 15, 5, 0])
    drawn = rng.multinomial(12, real / real.sum(), size=20_000)
    assert expected_modes(real=real, samples=12) == pytest.approx((drawn > 0).sum(1).mean(), abs=0.02)


def test_the_divergence_is_scipys_in_nats() -> None:
    real, generated = np.array([30, 20, 40, 10]), np.array([5, 0, 70, 25])
    assert histogram_divergence(real=real, generated=generated) == pytest.approx(entropy(generated, real), rel=1e-12)
    assert histogram_divergence(real=real, generated=7 * real) == pytest.approx(0, abs=1e-15)
    (found,) = ModeDivergence().measure(subject_of(real.tolist(), generated.tolist()))
    assert (found.value, found.unit) == (pytest.approx(entropy(generated, real)), "nats")


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_a_collapse_onto_k_of_n_even_classes_costs_log_n_over_k(kept: int) -> None:
    samples = [60] * kept + [0] * (10 - kept)
    seen = subject_of([36] * 10, samples, classes=10, stratified=True)
    (count,), (found,) = Modes().measure(seen), ModeDivergence().measure(seen)
    assert count.value == kept
    assert found.value == pytest.approx(np.log(10 / kept))
    assert found.high is not None
    assert found.low is not None
    assert found.low <= np.log(10 / kept) + 1e-12


def test_samples_of_a_class_without_real_images_give_a_reason() -> None:
    seen = subject_of([20, 0, 20, 20], [5, 1, 1, 1])
    assert histogram_divergence(real=np.array([1, 0]), generated=np.array([1, 1])) == np.inf
    assert "1 of 4 classes that no real image" in str(ModeDivergence().unavailable(seen))
    assert Modes().unavailable(seen) is None


def test_few_real_images_of_a_class_get_no_interval() -> None:
    (few,) = ModeDivergence().measure(subject_of([9, 30, 30, 30], [5, 50, 50, 50]))
    (unhit,) = ModeDivergence().measure(subject_of([9, 30, 30, 30], [0, 50, 50, 10]))
    assert (few.low, few.high) == (None, None)
    assert "got 9" in few.note
    assert unhit.low is not None


def test_less_than_chance_gets_no_interval_of_no_width() -> None:
    (found,) = ModeDivergence().measure(subject_of([36] * 4, [360] * 4, stratified=True))
    assert found.value == 0
    assert (found.low, found.high) == (None, None)
    assert "chance" in found.note


def test_the_note_tells_what_equal_distributions_would_give(rng: np.random.Generator) -> None:
    """Chi-squared limit: (K - 1) / 2 (1/M + 1/N), without the real images' part where their shares are fixed."""
    even = np.full(4, 0.25)
    for stratified in (False, True):
        (found,) = ModeDivergence().measure(subject_of([100] * 4, [70, 80, 50, 50], stratified=stratified))
        told = float(found.note.split("about ")[1].split(" on")[0])
        p = rng.multinomial(250, even, size=4000) / 250
        q = np.tile(even, (4000, 1)) if stratified else rng.multinomial(400, even, size=4000) / 400
        assert told == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=0.08)


def test_fixed_shares_are_not_resampled(rng: np.random.Generator) -> None:
    classes, generated = np.repeat(np.arange(4), 25), np.array([10**6, 10**6, 10**6, 10**6])

    def spread(groups: NDArray[np.int64] | None) -> float:
        found = bootstrap_divergences(classes=classes, generated=generated, replicates=300, rng=rng, groups=groups)
        return float(found.mean())

    assert spread(None) == pytest.approx(3 / 200, rel=0.2)
    assert spread(classes) < 1e-4


@pytest.mark.parametrize("tilt", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("fixed", [False, True])
def test_the_interval_covers_the_divergence_of_the_distributions(
    tilt: float, fixed: bool, rng: np.random.Generator
) -> None:
    q = np.full(10, 0.1)
    p = np.exp(tilt * np.linspace(-1, 1, 10))
    p /= p.sum()
    covered = 0
    for _ in range(200):
        generated = rng.multinomial(800, p)
        classes = np.repeat(np.arange(10), np.full(10, 40) if fixed else rng.multinomial(400, q))
        found = bootstrap_divergences(
            classes=classes, generated=generated, replicates=200, rng=rng, groups=classes if fixed else None
        )
        value = histogram_divergence(real=np.bincount(classes, minlength=10), generated=generated)
        low, high = reflected_interval(value, found, floor=0)
        covered += low - 1e-12 <= entropy(p, q) <= high + 1e-12
    assert covered >= 178


def test_the_samples_order_changes_nothing(subject: Callable[..., Subject]) -> None:
    seen, other = subject(), subject()
    other.generated.images = other.generated.images.flip(0)  # type: ignore[union-attr]
    other.generated._digest = None  # type: ignore[union-attr]
    for metric in (Modes(), ModeDivergence()):
        assert metric.measure(seen)[0].value == metric.measure(other)[0].value
