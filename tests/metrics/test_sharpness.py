"""Sharpness against ramps and checkerboards whose gradients are known, and its interval's coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.types import ImageShape
from bench.metrics.base import Subject
from bench.metrics.images import Held
from bench.metrics.sharpness import Sharpness, energy_ratio, gradient_energies
from bench.stats import normal_interval


def held(images: Tensor, levels: int = 256, what: str = "samples") -> Held:
    return Held(images, ImageShape(*images.shape[1:], levels), what, "test")


def sharpness(samples: Tensor, real: Tensor, levels: int = 256) -> float:
    (found,) = Sharpness().measure(
        Subject(0, generated=held(samples, levels), reference=held(real, levels, "test images"))
    )
    return found.value


def noise(n: int, seed: int = 0, side: int = 8, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


def test_a_ramp_has_the_square_of_its_slopes() -> None:
    y, x = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    ramp = (2 * x + 3 * y).byte()[None, None]
    assert gradient_energies(ramp, 256) == pytest.approx([(2 / 255) ** 2 + (3 / 255) ** 2], rel=1e-12)
    assert gradient_energies(ramp, 31) == pytest.approx([(2 / 30) ** 2 + (3 / 30) ** 2], rel=1e-12)


def test_a_checkerboard_has_two_and_one_row_its_own_direction_alone() -> None:
    board = (255 * (torch.arange(6)[:, None] + torch.arange(6)) % 2 * 255).byte()[None, None]
    assert gradient_energies(board, 256) == pytest.approx([2])
    assert gradient_energies(board[:, :, :1], 256) == pytest.approx([1])
    assert gradient_energies(board[:, :, :1, :1], 256) == pytest.approx([0])


def test_halved_contrast_is_a_quarter_and_a_mixture_its_mean() -> None:
    images = 2 * (noise(40) // 2)
    assert sharpness(images // 2, images) == pytest.approx(0.25, rel=1e-12)
    mixed = torch.cat([images, images // 2, torch.zeros_like(images)])
    assert sharpness(mixed, images) == pytest.approx(1.25 / 3, rel=1e-12)


def test_blur_lowers_it_and_noise_raises_it() -> None:
    smooth = F.avg_pool2d(noise(300, side=10).double(), 3, 1).round().byte()
    blurred = F.avg_pool2d(smooth.double(), 3, 1, 1, count_include_pad=False).round().byte()
    noisy = (smooth.int() + torch.randint(-40, 41, smooth.shape)).clamp(0, 255).byte()
    assert sharpness(blurred, smooth) < 0.7 < 1.3 < sharpness(noisy, smooth)


def test_shift_of_levels_flips_order_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, real = noise(50, 1, channels=3) // 2, noise(60, 2, channels=3)
    value = sharpness(samples, real)
    changed = (samples + 100, samples.flip(3), samples.flip(2), 127 - samples, samples.transpose(2, 3), samples.flip(0))
    for other in changed:
        assert sharpness(other, real) == pytest.approx(value, rel=1e-12)
    monkeypatch.setattr("bench.metrics.sharpness._PIXELS", 7 * 3 * 64)
    assert sharpness(samples, real) == pytest.approx(value, rel=1e-12)


def test_the_levels_of_each_set_are_its_own() -> None:
    images = noise(30) // 16
    found = Sharpness().measure(Subject(0, generated=held(images, 16), reference=held(17 * images, 256, "test images")))
    assert found[0].value == pytest.approx(1, rel=1e-12)


def test_its_interval_covers_the_ratio_of_the_means(rng: np.random.Generator) -> None:
    truth, covered = math.exp(0.3**2 / 2 - 0.5**2 / 2 + 0.2), 0
    for _ in range(400):
        generated, real = np.exp(0.2 + 0.3 * rng.normal(size=80)), np.exp(0.5 * rng.normal(size=50))
        value, error = energy_ratio(real=real, generated=generated)
        low, high = normal_interval(math.log(value), error)
        covered += low <= math.log(truth) <= high
    assert covered >= 368


def test_fixed_shares_of_classes_are_no_part_of_the_error(rng: np.random.Generator) -> None:
    classes, found = np.repeat([0, 1], 100), []
    for _ in range(300):
        real = np.exp(0.3 * rng.normal(size=200)) * np.where(classes == 0, 1, 5)
        found.append(
            (
                energy_ratio(real=real, generated=np.ones(9), classes=classes),
                energy_ratio(real=real, generated=np.ones(9)),
            )
        )
    truth = np.std([math.log(aware.value) for aware, _ in found])
    assert np.mean([aware.log_error for aware, _ in found]) == pytest.approx(truth, rel=0.1)
    assert np.mean([plain.log_error for _, plain in found]) > 1.7 * truth


def test_samples_without_gradients_have_zero_and_no_interval() -> None:
    flat = torch.full((20, 1, 8, 8), 9, dtype=torch.uint8)
    (found,) = Sharpness().measure(Subject(0, generated=held(flat), reference=held(noise(20), what="test images")))
    assert (found.value, found.low, found.high) == (0, None, None)
    reason = Sharpness().unavailable(Subject(0, generated=held(noise(20)), reference=held(flat, what="test images")))
    assert reason == "the test images have no gradients"


def test_other_sizes_give_a_reason_and_no_extractor_is_asked(subject: Callable[..., Subject]) -> None:
    other = Subject(0, generated=held(noise(5, side=6)), reference=held(noise(5), what="test images"))
    assert "samples of 1 x 6 x 6 and test images of 1 x 8 x 8" in str(Sharpness().unavailable(other))
    seen = subject()
    Sharpness().measure(seen)
    assert seen.extractor.calls == 0  # type: ignore[union-attr]


def test_sets_are_refused_by_position_and_without_gradients() -> None:
    with pytest.raises(TypeError):
        energy_ratio(np.ones(3), np.ones(3))  # type: ignore[misc]
    with pytest.raises(ValueError, match="real mean above 0"):
        energy_ratio(real=np.zeros(3), generated=np.ones(3))
