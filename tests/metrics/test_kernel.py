"""The kernel distance against closed forms, a naive double loop and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from bench.metrics.kernel import kernel_distance
from bench.stats import normal_interval


def test_constants_zero_and_one_are_seven_apart() -> None:
    # k(0, 0) + k(1, 1) - 2 k(0, 1) = 1 + 8 - 2
    assert kernel_distance(real=np.zeros((5, 1)), generated=np.ones((4, 1))).value == pytest.approx(7, rel=1e-14)


def test_a_set_is_below_zero_from_itself(rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 3))
    assert kernel_distance(real=x, generated=x).value < 0


def test_independent_sets_of_one_distribution_average_zero(rng: np.random.Generator) -> None:
    found = [
        kernel_distance(real=rng.normal(size=(30, 4)), generated=rng.normal(size=(50, 4))).value for _ in range(400)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_it_is_the_mean_over_all_pairs_of_different_images(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(7, 5)), rng.normal(size=(6, 5)) + 0.3

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    within_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    expected = within_x + within_y - 2 * across
    assert kernel_distance(real=x, generated=y).value == pytest.approx(expected, rel=1e-12)


def test_the_error_is_the_delete_one_jackknife(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(12, 3)) + 1
    without_x = [kernel_distance(real=np.delete(x, i, 0), generated=y).value for i in range(9)]
    without_y = [kernel_distance(real=x, generated=np.delete(y, i, 0)).value for i in range(12)]
    expected = np.sqrt(8 * np.var(without_x) + 11 * np.var(without_y))
    assert kernel_distance(real=x, generated=y).error == pytest.approx(expected, rel=1e-9)


def stratified(rng: np.random.Generator, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Two far classes with the same number of images each, in mixed order."""
    classes = rng.permutation(np.repeat([0, 1], each))
    return rng.normal(size=(2 * each, 3)) + 3 * classes[:, None], classes


def test_classes_in_fixed_shares_average_zero_too_but_not_if_they_are_ignored(rng: np.random.Generator) -> None:
    aware, ignorant = [], []
    for _ in range(300):
        x, classes = stratified(rng, 15)
        y = rng.normal(size=(60, 3)) + 3 * rng.integers(2, size=60)[:, None]
        aware.append(kernel_distance(real=x, generated=y, classes=classes).value)
        ignorant.append(kernel_distance(real=x, generated=y).value)
    error = np.std(aware) / np.sqrt(300)
    assert abs(np.mean(aware)) < 3 * error
    assert np.mean(ignorant) < -10 * error


def test_class_pairs_weigh_as_their_shares(rng: np.random.Generator) -> None:
    x, classes = stratified(rng, 5)
    x, classes = x[:-1], classes[:-1]  # unequal shares
    y = rng.normal(size=(6, 3))
    k = (x @ x.T / 3 + 1) ** 3
    np.fill_diagonal(k, np.nan)
    shares = {c: np.mean(classes == c) for c in (0, 1)}
    within = sum(
        shares[a] * shares[b] * np.nanmean(k[np.ix_(classes == a, classes == b)]) for a in (0, 1) for b in (0, 1)
    )
    k_y = (y @ y.T / 3 + 1) ** 3
    np.fill_diagonal(k_y, np.nan)
    expected = within + np.nanmean(k_y) - 2 * ((x @ y.T / 3 + 1) ** 3).mean()
    assert kernel_distance(real=x, generated=y, classes=classes).value == pytest.approx(expected, rel=1e-12)


def test_the_error_with_classes_covers_the_spread_of_the_estimate(rng: np.random.Generator) -> None:
    found = []
    for _ in range(300):
        x, classes = stratified(rng, 40)
        found.append(kernel_distance(real=x, generated=rng.normal(size=(90, 3)), classes=classes))
    assert np.mean([f.error for f in found]) == pytest.approx(np.std([f.value for f in found]), rel=0.2)


def test_classes_of_two_images_are_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 2))
    with pytest.raises(ValueError, match="smallest class has 2"):
        kernel_distance(real=x, generated=x, classes=[0] * 7 + [1] * 2)


def test_blocks_change_nothing(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(37, 3)), rng.normal(size=(53, 3))
    whole, blocked = (kernel_distance(real=x, generated=y, block=size) for size in (1000, 10))
    np.testing.assert_allclose(blocked, whole, rtol=1e-10)


def test_it_agrees_with_torch_fidelity_on_one_subset_of_all(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(200, 16)), rng.normal(size=(200, 16)) + 0.2
    theirs = kid_features_to_metric(
        torch.from_numpy(y), torch.from_numpy(x), kid_subsets=1, kid_subset_size=200, verbose=False
    )[KEY_METRIC_KID_MEAN]
    assert kernel_distance(real=x, generated=y).value == pytest.approx(theirs, rel=1e-9)


def test_it_agrees_with_torch_fidelity_within_its_subset_error(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(400, 16)), rng.normal(size=(500, 16)) + 0.2
    theirs = kid_features_to_metric(
        torch.from_numpy(y), torch.from_numpy(x), kid_subsets=100, kid_subset_size=100, verbose=False
    )
    error = theirs["kernel_inception_distance_std"] / np.sqrt(100)
    assert abs(kernel_distance(real=x, generated=y).value - theirs[KEY_METRIC_KID_MEAN]) < 4 * error


def test_its_interval_covers_the_truth(rng: np.random.Generator) -> None:
    # x ~ N(0, 1), y ~ N(1, 1), d = 1: E k = 1 + 3 E[t] + 3 E[t^2] + E[t^3], t a product of independent variables
    def mean_kernel(a: float, b: float) -> float:
        return 1 + 3 * a * b + 3 * (1 + a * a) * (1 + b * b) + (a**3 + 3 * a) * (b**3 + 3 * b)

    truth = mean_kernel(0, 0) + mean_kernel(1, 1) - 2 * mean_kernel(0, 1)
    covered = 0
    for _ in range(200):
        value, error = kernel_distance(real=rng.normal(size=(200, 1)), generated=rng.normal(size=(300, 1)) + 1)
        low, high = normal_interval(value, error)
        covered += low <= truth <= high
    assert covered >= 180


def test_positions_and_shapes_that_do_not_fit_are_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, 2))
    with pytest.raises(TypeError):
        kernel_distance(x, x)  # type: ignore[misc]
    with pytest.raises(ValueError, match="expected"):
        kernel_distance(real=x, generated=x[:2])
