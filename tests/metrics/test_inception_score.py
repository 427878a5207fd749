"""The inception score against closed forms and torch-fidelity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from bench.metrics.base import Subject
from bench.metrics.inception_score import InceptionScore, bootstrap_scores, inception_score
from bench.stats import reflected_interval


@pytest.mark.parametrize("a", [0.0, 0.1, 0.37, 0.5])
def test_two_mirrored_rows_score_two_to_the_power_of_what_is_known(a: float) -> None:
    rows = np.array([[a, 1 - a], [1 - a, a]] * 5)
    assert inception_score(probabilities=rows) == pytest.approx(2 * np.exp(-entropy([a, 1 - a])), rel=1e-12)


def test_uniform_one_hots_score_the_number_of_classes() -> None:
    assert inception_score(probabilities=np.tile(np.eye(10), (7, 1))) == pytest.approx(10, rel=1e-12)


def test_an_unused_class_makes_no_nan() -> None:
    rows = np.tile(np.eye(10)[:4], (7, 1))
    assert inception_score(probabilities=rows) == pytest.approx(4, rel=1e-12)


def test_logits_that_underflow_make_no_nan() -> None:
    rows = softmax(np.array([[0.0, -2000.0, -2000.0], [-2000.0, 0.0, -2000.0]]), axis=1)
    assert inception_score(probabilities=rows) == pytest.approx(2, rel=1e-12)


def test_a_thousand_perfect_classes_score_less_in_ten_splits() -> None:
    rng = np.random.default_rng(0)
    rows = np.eye(200)[rng.integers(200, size=2000)]
    whole, parts = inception_score(probabilities=rows), inception_score(probabilities=rows, splits=10)
    assert parts < 0.7 * whole < 140  # 200 images a split cannot fill 200 classes; 2000 nearly do


@pytest.mark.parametrize("splits", [1, 10])
def test_it_agrees_with_torch_fidelity(splits: int, rng: np.random.Generator) -> None:
    logits = 3 * rng.normal(size=(517, 12))
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=False)[KEY_METRIC_ISC_MEAN]
    ours = inception_score(probabilities=softmax(logits, axis=1), splits=splits)
    assert ours == pytest.approx(theirs, rel=1e-10)


def test_rows_that_are_no_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        inception_score(probabilities=np.ones((4, 3)))
    with pytest.raises(ValueError, match="splits"):
        inception_score(probabilities=np.eye(3), splits=4)


def test_a_resample_has_the_score_of_the_rows_it_drew(rng: np.random.Generator) -> None:
    rows = softmax(rng.normal(size=(25, 4)), axis=1)
    found = bootstrap_scores(probabilities=rows, replicates=4, rng=np.random.default_rng(3))
    again = np.random.default_rng(3)
    expected = [inception_score(probabilities=rows[again.integers(25, size=25)]) for _ in found]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_reflected_interval_covers_the_score_of_infinitely_many_images(rng: np.random.Generator) -> None:
    kinds = softmax(2 * rng.normal(size=(300, 10)), axis=1)  # three hundred sorts of image, equally frequent
    truth = np.log(inception_score(probabilities=kinds))
    covered = 0
    for _ in range(200):
        rows = kinds[rng.integers(300, size=1437)]
        scores = bootstrap_scores(probabilities=rows, replicates=200, rng=rng)
        low, high = reflected_interval(np.log(inception_score(probabilities=rows)), np.log(scores), floor=0)
        covered += low <= truth <= high
    assert covered >= 180


def test_several_splits_get_no_interval(subject: Callable[..., Subject]) -> None:
    (one,) = InceptionScore().measure(subject())
    (ten,) = InceptionScore(splits=10).measure(subject())
    assert one.low is not None
    assert one.low <= one.value
    assert ten.low is None
    assert (one.protocol["splits"], ten.protocol["splits"]) == (1, 10)
