"""The Gaussian-kernel distance against its closed form for Gaussians, the naive double loop and CMMD's definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from bench.metrics.base import Features, Subject
from bench.metrics.kernel import kernel_distance
from bench.metrics.mmd import mmd2
from bench.metrics.mmd_rbf import GaussianKernel, gaussian_distance, median_distance
from bench.stats import normal_interval

Array = NDArray[np.float64]


def closed_form(sigma: float, a: float, s: float, b: float, t: float) -> float:
    """Squared MMD of N(a, s^2) and N(b, t^2): the kernel's mean over a normal difference, three times."""

    def mean_kernel(gap: float, variance: float) -> float:
        return float(sigma / np.sqrt(sigma**2 + variance) * np.exp(-(gap**2) / (2 * (sigma**2 + variance))))

    return mean_kernel(0, 2 * s * s) + mean_kernel(0, 2 * t * t) - 2 * mean_kernel(a - b, s * s + t * t)


def naive(x: Array, y: Array, sigma: float) -> float:
    def k(a: Array, b: Array) -> Array:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * sigma**2))

    n, m = len(x), len(y)
    within = (k(x, x).sum() - n) / (n * (n - 1)) + (k(y, y).sum() - m) / (m * (m - 1))
    return float(within - 2 * k(x, y).mean())


def test_it_is_the_mean_over_all_pairs_of_different_images(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(7, 5)), rng.normal(size=(6, 5)) + 0.3
    found = gaussian_distance(sigma=1.7, real=x, generated=y)
    assert found.value == pytest.approx(naive(x, y, 1.7), rel=1e-12)


def test_it_averages_the_closed_form_and_its_interval_covers_it(rng: np.random.Generator) -> None:
    truth, found, covered = closed_form(0.8, 0, 1, 0.5, 1.3), [], 0
    for _ in range(300):
        x, y = rng.normal(size=(100, 1)), 0.5 + 1.3 * rng.normal(size=(150, 1))
        value, error = gaussian_distance(sigma=0.8, real=x, generated=y)
        low, high = normal_interval(value, error)
        covered += low <= truth <= high
        found.append(value)
    assert abs(np.mean(found) - truth) < 3.5 * np.std(found) / np.sqrt(len(found))
    assert covered >= 270


def test_classes_in_fixed_shares_average_the_truth_too(rng: np.random.Generator) -> None:
    aware, ignorant = [], []
    for _ in range(300):
        classes = rng.permutation(np.repeat([0, 1], 15))
        x = rng.normal(size=(30, 3)) + 3 * classes[:, None]
        y = rng.normal(size=(60, 3)) + 3 * rng.integers(2, size=60)[:, None]
        aware.append(gaussian_distance(sigma=2, real=x, generated=y, classes=classes).value)
        ignorant.append(gaussian_distance(sigma=2, real=x, generated=y).value)
    error = np.std(aware) / np.sqrt(300)
    assert abs(np.mean(aware)) < 3.5 * error
    assert np.mean(ignorant) < -5 * error


def test_a_wide_kernel_sees_the_means_alone(rng: np.random.Generator) -> None:
    # exp(-t / 2 s^2) = 1 - t / 2 s^2 + ..., and with k = -|x - y|^2 / 2 the squared MMD is that of the linear kernel
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(50, 3)) + 1
    linear = mmd2(kernel=lambda a, b: a @ b.T, real=x, generated=y).value
    assert 1e8 * gaussian_distance(sigma=1e4, real=x, generated=y).value == pytest.approx(linear, rel=1e-5)


def test_blocks_offset_order_and_scale_change_nothing(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(37, 3)), rng.normal(size=(53, 3)) + 0.2
    whole = gaussian_distance(sigma=1.5, real=x, generated=y)
    others = [
        gaussian_distance(sigma=1.5, real=x, generated=y, block=10),
        gaussian_distance(sigma=1.5, real=x[::-1], generated=y[::-1]),
        gaussian_distance(sigma=1.5, real=x + 1e4, generated=y + 1e4),
        gaussian_distance(sigma=1.5e-100, real=1e-100 * x, generated=1e-100 * y),
    ]
    for other in others:
        np.testing.assert_allclose(other, whole, rtol=1e-8)


def test_the_cubic_kernel_is_the_kernel_distance_to_the_bit(rng: np.random.Generator) -> None:
    x, y, classes = rng.normal(size=(30, 4)), rng.normal(size=(20, 4)), np.arange(30) % 3

    def cubic(a: Array, b: Array) -> Array:
        k = a @ b.T * (1 / 4) + 1
        return k * k * k

    assert mmd2(kernel=cubic, real=x, generated=y, classes=classes) == kernel_distance(
        real=x, generated=y, classes=classes
    )


def test_the_bandwidth_is_the_median_distance_of_real_images_to_four_digits(rng: np.random.Generator) -> None:
    x = rng.normal(size=(90, 6)) + 1000
    assert median_distance(x) == float(f"{np.median(pdist(x)):.4g}")
    assert median_distance(1e-200 * x) == pytest.approx(1e-200 * median_distance(x), rel=1e-12)
    many = rng.normal(size=(5000, 6))
    assert median_distance(many) == pytest.approx(np.median(pdist(many[:2000])), rel=0.02)
    assert median_distance(np.ones((5, 2))) == 0


def test_the_bandwidth_belongs_to_the_real_images_and_stands_in_the_protocol(
    subject: Callable[..., Subject],
) -> None:
    first, second = subject(), subject()
    second.generated.images.fill_(8)  # type: ignore[union-attr]
    protocols = [GaussianKernel().measure(seen)[0].protocol for seen in (first, second)]
    assert protocols[0] == protocols[1]
    values = first.extractor.extract(first.reference.images, 17).values  # type: ignore[union-attr]
    assert protocols[0]["sigma"] == median_distance(values)


class Clip:
    """Two features that are far from unit length, as CLIP's are before they are divided by it."""

    def __init__(self, name: str = "clip-vit-l-14-336px", **identity: str) -> None:
        self.name, self.about = name, identity or {"weights_sha256": "0"}

    def identity(self) -> dict[str, str]:
        return self.about

    def extract(self, images: Tensor, levels: int) -> Features:
        return Features(50 * images.flatten(1)[:, :3].double().numpy() + 1)


def test_in_clips_features_it_is_cmmd(subject: Callable[..., Subject]) -> None:
    seen = subject(extractor=Clip())
    (found,) = GaussianKernel().measure(seen)
    sets = [Clip().extract(held.images, 17).values for held in (seen.reference, seen.generated)]  # type: ignore[union-attr]
    x, y = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in sets)
    assert found.metric == "cmmd[clip-vit-l-14-336px]"
    assert found.value == pytest.approx(1000 * naive(x, y, sigma=10), rel=1e-6)
    assert (found.protocol["sigma"], found.protocol["scale"]) == (10, 1000)
    assert found.low is not None
    assert found.low < found.value


@pytest.mark.parametrize(
    "other", [Clip("clip"), Clip("clip-mine"), Clip(given="features computed elsewhere")], ids=lambda e: e.name
)
def test_another_tower_or_features_computed_elsewhere_are_not_called_cmmd(
    subject: Callable[..., Subject], other: Clip
) -> None:
    (found,) = GaussianKernel().measure(subject(extractor=other))
    assert found.metric == f"mmd_rbf[{other.name}]"


def test_real_images_that_are_all_alike_give_a_reason(subject: Callable[..., Subject]) -> None:
    seen = subject()
    seen.reference.images.fill_(3)  # type: ignore[union-attr]
    assert "bandwidth" in str(GaussianKernel().unavailable(seen))
    clip = subject(extractor=Clip())
    clip.reference.images.fill_(3)  # type: ignore[union-attr]
    assert GaussianKernel().unavailable(clip) is None


def test_sets_cannot_be_swapped_by_position_and_sigma_is_positive(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 2))
    with pytest.raises(TypeError):
        gaussian_distance(1.0, x, x)  # type: ignore[misc]
    with pytest.raises(ValueError, match="sigma > 0"):
        gaussian_distance(sigma=0, real=x, generated=x)
