"""Memorisation: copiers, independent samples, the jackknife by brute force, and the interval's simulated coverage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from bench.metrics.base import Subject
from bench.metrics.extractors import PixelExtractor
from bench.metrics.memorisation import EFFECTIVE, Memorisation, TrainShare, median_ratio, nearest_two, train_share
from bench.stats import normal_interval

Array = NDArray[np.float64]


def share_of(samples: Array, train: Array, held: Array) -> TrainShare:
    near_train, near_held = nearest_two(samples, train), nearest_two(samples, held)
    return train_share(train=near_train, held_out=near_held, trained=len(train), held=len(held))


def by_name(subject: Subject) -> dict[str, float]:
    return {m.metric: m.value for m in Memorisation().measure(subject)}


def show(subject: Subject, images: torch.Tensor) -> Subject:
    """The same subject with these samples."""
    subject.generated.images = images  # type: ignore[union-attr]
    subject.generated._digest = None  # type: ignore[union-attr]
    return subject


@pytest.fixture
def seen(subject: Callable[..., Subject]) -> Subject:
    found = subject(extractor=PixelExtractor())
    found.train.images = torch.randint(17, (300, 1, 4, 4), generator=torch.Generator().manual_seed(9)).byte()  # type: ignore[union-attr]
    return found


def test_a_copier_of_train_images_has_one_and_zero(seen: Subject) -> None:
    found = by_name(show(seen, seen.train.images[:150]))  # type: ignore[union-attr]
    assert found == {"nn_train_share[pixels8x8]": 1, "nn_train_ratio[pixels8x8]": 0}


def test_a_copier_of_held_out_images_has_zero_and_no_ratio(seen: Subject) -> None:
    (found,) = Memorisation().measure(show(seen, seen.reference.images))  # type: ignore[union-attr]
    assert (found.metric, found.value) == ("nn_train_share[pixels8x8]", 0)
    assert "no ratio" in found.note


def test_a_copy_of_an_image_of_both_sets_counts_as_a_half(seen: Subject) -> None:
    seen.reference.images[:] = seen.train.images[:120]  # type: ignore[union-attr]
    show(seen, seen.train.images[:120])  # type: ignore[union-attr]
    share = Memorisation().measure(seen)[0]
    assert share.value == pytest.approx((0.5 / 300) / (0.5 / 300 + 0.5 / 120))


@pytest.mark.parametrize(("trained", "held"), [(200, 200), (400, 100), (100, 300)])
def test_independent_samples_have_a_half_and_one_whatever_the_numbers(
    trained: int, held: int, rng: np.random.Generator
) -> None:
    shares, ratios = [], []
    for _ in range(120):
        samples, train, out = (rng.normal(size=(n, 6)) for n in (150, trained, held))
        shares.append(share_of(samples, train, out).value)
        usual = median_ratio(nearest_two(out, train), nearest_two(out, out, own=np.arange(held)))
        ratios.append(median_ratio(nearest_two(samples, train), nearest_two(samples, out)) / usual)
    assert abs(np.mean(shares) - 0.5) < 3.5 * np.std(shares) / np.sqrt(120) + 0.003  # 0.003: the ratio of means
    assert abs(np.mean(ratios) - 1) < 3.5 * np.std(ratios) / np.sqrt(120) + 0.01


def test_equal_distances_between_few_levels_are_ties(rng: np.random.Generator) -> None:
    samples, train, held = (rng.integers(2, size=(n, 12)).astype(float) for n in (200, 90, 60))
    hamming = [np.abs(samples[:, None] - x).sum(2).min(1) for x in (train, held)]
    share = (np.sign(hamming[1] - hamming[0]) + 1).mean() / 2
    assert (hamming[0] == hamming[1]).mean() > 0.3  # the premise
    found = [share_of((samples - c) / 7, (train - c) / 7, (held - c) / 7).value for c in (0.0, 0.51)]
    assert found == pytest.approx([(share / 90) / (share / 90 + (1 - share) / 60)] * 2, rel=1e-12)


def test_more_copies_read_higher(rng: np.random.Generator) -> None:
    train, held, fresh = (rng.normal(size=(n, 6)) for n in (600, 200, 400))
    values = [
        share_of(np.concatenate([train[:copies], fresh[copies:]]), train, held).value for copies in (0, 80, 200, 400)
    ]
    assert values == sorted(values)
    assert values[-1] == 1
    assert values[0] == pytest.approx(0.5, abs=0.12)


def test_the_two_nearest_are_scikit_learns(rng: np.random.Generator) -> None:
    points, images = rng.normal(size=(60, 5)), rng.normal(size=(80, 5))
    distances, index = NearestNeighbors(n_neighbors=2).fit(images).kneighbors(points)
    found = nearest_two(points, images)
    np.testing.assert_allclose(np.sqrt(found.first), distances[:, 0], rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(found.second), distances[:, 1], rtol=1e-9)
    assert (found.which == index[:, 0]).all()
    others = nearest_two(images, images, own=np.arange(80))
    distances, index = NearestNeighbors(n_neighbors=2).fit(images).kneighbors(images)
    np.testing.assert_allclose(np.sqrt(others.first), distances[:, 1], rtol=1e-9)
    assert (others.which == index[:, 1]).all()


def test_blocks_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    points, images = rng.normal(size=(60, 5)), rng.normal(size=(80, 5))
    whole, apart = nearest_two(points, images), nearest_two(images, images, own=np.arange(80))
    monkeypatch.setattr("bench.metrics.memorisation._COLUMNS", 13)
    for found, expected in (
        (nearest_two(points, images, block=7), whole),
        (nearest_two(images, images, block=7, own=np.arange(80)), apart),
    ):
        np.testing.assert_allclose(found.first, expected.first, rtol=1e-9)
        np.testing.assert_allclose(found.second, expected.second, rtol=1e-9)
        assert (found.which == expected.which).all()


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 100.0), (1e150, 0.0)])
def test_offset_and_scale_of_the_features_change_nothing(scale: float, offset: float, seen: Subject) -> None:
    alone = by_name(seen)
    moved = show(seen, seen.generated.images)  # type: ignore[union-attr]
    moved.cache.clear()
    inner = seen.extractor.extract  # type: ignore[union-attr]

    def extract(images: torch.Tensor, levels: int) -> object:
        found = inner(images, levels)
        return type(found)(scale * found.values + offset, found.logits)

    seen.extractor.extract = extract  # type: ignore
    assert by_name(moved) == pytest.approx(alone, rel=1e-6)


def test_the_rounding_of_a_float32_network_hides_no_copy(rng: np.random.Generator) -> None:
    train, held = rng.normal(size=(50, 64)), rng.normal(size=(50, 64))
    again = train + 1e-7 * rng.normal(size=train.shape)
    assert (nearest_two(again, train).first == 0).all()
    assert (nearest_two(train + 1e-3, train).first > 0).all()
    assert share_of(again, np.concatenate([train, held]), train).value < 0.5  # ties, not wins


def test_the_error_is_the_delete_one_jackknife_over_three_sets(rng: np.random.Generator) -> None:
    sets = [rng.normal(size=(n, 2)) for n in (25, 14, 9)]
    variance = 0.0
    for which, x in enumerate(sets):
        without = []
        for i in range(len(x)):
            kept = [np.delete(y, i, 0) if j == which else y for j, y in enumerate(sets)]
            without.append(share_of(*kept).value)
        variance += (len(x) - 1) * np.var(without)
    assert share_of(*sets).error == pytest.approx(np.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize(("spread", "shift"), [(1.0, 0.0), (0.8, 0.3)])
def test_the_interval_covers_a_half_for_independent_samples(
    spread: float, shift: float, rng: np.random.Generator
) -> None:
    covered, binomial = 0, 0
    for _ in range(150):
        train, held = rng.normal(size=(300, 4)), rng.normal(size=(150, 4))
        found = share_of(spread * rng.normal(size=(600, 4)) + shift, train, held)
        assert found.effective >= EFFECTIVE
        low, high = normal_interval(found.value, found.error)
        covered += low <= 0.5 <= high
        binomial += abs(found.value - 0.5) <= 1.96 * 0.5 / np.sqrt(600)
    assert covered >= 138
    assert binomial < covered


def test_samples_that_share_few_neighbours_get_no_interval(seen: Subject) -> None:
    show(seen, torch.full((150, 1, 4, 4), 8, dtype=torch.uint8))
    share, ratio = Memorisation().measure(seen)
    assert (share.low, share.high, ratio.low) == (None, None, None)
    assert "got 1" in share.note
    assert share.better == ratio.better == "none"


def test_reasons(subject: Callable[..., Subject]) -> None:
    metric, unknown, alike, large, few = Memorisation(), *(subject() for _ in range(4))
    unknown.train = None
    assert "not known" in str(metric.unavailable(unknown))
    alike.train = alike.reference
    assert "are the same" in str(metric.unavailable(alike))
    large.train = subject(side=6).train
    assert "train images of 1 x 6 x 6 and test images of 1 x 4 x 4" in str(metric.unavailable(large))
    few.train.images = few.train.images[:1]  # type: ignore[union-attr]
    assert "needs at least 2 train images" in str(metric.unavailable(few))
