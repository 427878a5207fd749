"""Precision, recall, density and coverage against closed forms, scikit-learn and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from bench.metrics.manifold import density_coverage, expected_coverage, precision_recall

Array = NDArray[np.float64]


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Array, Array]:
    """Two overlapping clouds of different width: precision and recall differ."""
    return rng.normal(size=(300, 5)), 0.6 * rng.normal(size=(400, 5)) + 0.2


def test_identical_sets_have_full_precision_and_recall(rng: np.random.Generator) -> None:
    x = rng.normal(size=(50, 4))
    assert precision_recall(real=x, generated=x[::-1]) == (1, 1)
    assert density_coverage(real=x, generated=x).coverage == 1


def test_disjoint_sets_have_none(rng: np.random.Generator) -> None:
    x = rng.normal(size=(50, 4))
    assert precision_recall(real=x, generated=x + 100) == (0, 0)
    assert density_coverage(real=x, generated=x + 100) == (0, 0)


def test_collapse_onto_a_real_image_is_precise_and_recalls_nothing_else(rng: np.random.Generator) -> None:
    x = rng.normal(size=(200, 4))
    assert precision_recall(real=x, generated=np.repeat(x[:1], 80, 0)) == (1, 1 / 200)


def test_collapse_of_both_sets_is_decided_without_rounding(rng: np.random.Generator) -> None:
    point = rng.normal(size=(1, 64)) * 1e3
    real, generated = np.repeat(point, 30, 0), np.repeat(point, 40, 0)
    assert precision_recall(real=real, generated=generated) == (1, 1)
    assert precision_recall(real=real, generated=np.nextafter(generated, np.inf)) == (0, 0)


def test_swapping_the_sets_swaps_precision_and_recall(pair: tuple[Array, Array]) -> None:
    real, generated = pair
    there, back = precision_recall(real=real, generated=generated), precision_recall(real=generated, generated=real)
    assert there == (back.recall, back.precision)
    assert there.precision - there.recall > 0.2  # the premise: a swap would show
    with pytest.raises(TypeError):
        precision_recall(real, generated)  # type: ignore[misc]
    with pytest.raises(TypeError):
        density_coverage(real, generated)  # type: ignore[misc]


@pytest.mark.parametrize(("scale", "offset"), [(0.01, 100.0), (1e-3, 1e6), (1e-200, 0.0), (1e200, 0.0)])
def test_offset_and_scale_change_nothing(scale: float, offset: float, pair: tuple[Array, Array]) -> None:
    real, generated = pair
    moved = {"real": scale * real + offset, "generated": scale * generated + offset}
    assert precision_recall(**moved) == precision_recall(real=real, generated=generated)
    assert density_coverage(**moved) == density_coverage(real=real, generated=generated)


def test_one_far_outlier_does_not_blur_the_rest(pair: tuple[Array, Array]) -> None:
    real, generated = pair
    far = np.full((1, 5), 1e9)
    alone, beside = (precision_recall(real=x, generated=generated).precision for x in (real, np.append(real, far, 0)))
    # the outlier's own ball reaches back to the cloud's edge, and so may only add
    without = density_coverage(real=real, generated=generated, k=1).coverage * len(real)
    with_it = density_coverage(real=np.append(real, far, 0), generated=generated, k=1).coverage * (len(real) + 1)
    assert beside >= alone
    assert with_it in (without, without + 1)


def test_it_agrees_with_torch_fidelity(pair: tuple[Array, Array]) -> None:
    real, generated = pair
    theirs = prc_features_to_metric(torch.from_numpy(generated), torch.from_numpy(real), verbose=False)
    ours = precision_recall(real=real, generated=generated)
    assert ours.precision == pytest.approx(theirs[KEY_METRIC_PRECISION], rel=1e-6)
    assert ours.recall == pytest.approx(theirs[KEY_METRIC_RECALL], rel=1e-6)


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_agree_with_scikit_learns_neighbours(k: int, pair: tuple[Array, Array]) -> None:
    real, generated = pair
    radii = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
    distances = np.linalg.norm(generated[:, None] - real[None], axis=2)
    found = density_coverage(real=real, generated=generated, k=k)
    assert found.density == pytest.approx((distances <= radii).sum() / (k * len(generated)), rel=1e-12)
    assert found.coverage == pytest.approx((distances.min(0) <= radii).mean(), rel=1e-12)


def test_a_copy_of_a_neighbour_lies_on_the_ball_and_counts(rng: np.random.Generator) -> None:
    # every generated point is a real one, so each ball of k = 1 is hit at its centre and at its very radius
    x = rng.normal(size=(150, 64))
    density = density_coverage(real=x, generated=x, k=1).density
    assert density == pytest.approx(2, abs=1e-12)


def test_duplicates_are_neighbours(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 3))
    doubled = np.repeat(x, 2, 0)  # the nearest other point is the copy: balls of radius 0
    shifted = x + 1e-6
    assert density_coverage(real=doubled, generated=shifted, k=1) == (0, 0)
    assert density_coverage(real=doubled, generated=x, k=1) == (2, 1)


def test_blocks_change_nothing(pair: tuple[Array, Array]) -> None:
    real, generated = pair
    for pairwise in (precision_recall, density_coverage):
        whole, blocked = (pairwise(real=real, generated=generated, block=size) for size in (5000, 17))
        assert blocked == whole


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 5), (30, 60, 3)])
def test_equal_distributions_have_the_expected_coverage_and_density_one(
    n: int, m: int, k: int, rng: np.random.Generator
) -> None:
    found = [density_coverage(real=rng.normal(size=(n, 3)), generated=rng.normal(size=(m, 3)), k=k) for _ in range(400)]
    mean, error = np.mean(found, 0), np.std(found, 0) / np.sqrt(len(found))
    if n == m:
        paper = 1 - np.prod([(n - i) / (2 * n - i) for i in range(1, k + 1)])  # Naeem et al. 2020, eq. 9
        assert expected_coverage(n, m, k) == pytest.approx(paper)
    assert abs(mean[0] - 1) < 3.5 * error[0]
    assert abs(mean[1] - expected_coverage(n, m, k)) < 3.5 * error[1]


def test_too_few_points_and_other_shapes_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="more points than k = 3"):
        precision_recall(real=rng.normal(size=(9, 2)), generated=rng.normal(size=(3, 2)))
    with pytest.raises(ValueError, match="expected"):
        density_coverage(real=rng.normal(size=(9, 2)), generated=rng.normal(size=(9, 3)))
