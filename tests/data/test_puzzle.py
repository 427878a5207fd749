"""Key patches: cut from where the masks say, disjoint, told in an order that hangs on their content alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from baselines.data import catalogue, puzzle
from baselines.data.dataset import Dataset


@pytest.fixture(scope="module")
def data() -> Dataset:
    return catalogue.load("digits-puzzle")


def some(n: int = 7, size: tuple[int, int] = (9, 11), channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, *size), dtype=np.uint8)


def test_it_is_the_enlarged_data_with_requests(data: Dataset) -> None:
    large = catalogue.load("digits-large")
    assert data.tasks == {"unconditional", "completion"}
    assert data.conditions.patches == (3, 4)
    assert data.fingerprint() != large.fingerprint()
    for ours, theirs in ((data.train, large.train), (data.val, large.val), (data.test, large.test)):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)  # type: ignore[arg-type]
        requests = ours.requests
        assert requests is not None
        assert requests.aligned
        assert requests.answers is not None
        assert requests.masks is not None
        assert torch.equal(requests.answers, ours.images)
        assert requests.given.patches is not None
        assert requests.given.patches.shape == (len(ours), 3, 1, 4, 4)
        assert requests.given.images is None, "nothing but the patches is given"
        assert requests.masks.shape == (len(ours), 1, 16, 16)


def test_patches_share_no_pixel_and_lie_inside_of_the_mask(data: Dataset) -> None:
    requests = data.test.requests
    assert requests is not None
    assert requests.masks is not None
    assert requests.given.patches is not None
    assert torch.equal(requests.masks.flatten(1).sum(1), torch.full((len(requests),), 3 * 16))
    inside = (data.test.images * requests.masks).flatten(1).sort(1).values[:, -48:]
    assert torch.equal(inside, requests.given.patches.flatten(1).sort(1).values), "the mask covers the patches' pixels"


def test_sums_of_windows_and_usual_ink_are_those_of_plain_formulas() -> None:
    images = some(channels=3)
    sums = puzzle.ink_of_windows(images, 4)
    assert np.array_equal(sums, sliding_window_view(images.astype(np.int64), (4, 4), axis=(2, 3)).sum((1, 4, 5)))
    mean, deviation = puzzle.usual_ink(images, 4)
    np.testing.assert_allclose(mean, sums.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, sums.std(0), rtol=1e-9)


def test_the_first_place_has_the_most_news_and_the_next_the_most_that_is_left() -> None:
    content = np.random.default_rng(1).normal(size=(20, 8, 9))
    places = puzzle.key_places(content, 3, 3)
    for values, found in zip(content, places, strict=True):
        for k, (row, column) in enumerate(found):
            free = [
                values[r, c]
                for r, c in itertools.product(range(8), range(9))
                if all(max(abs(r - a), abs(c - b)) >= 3 for a, b in found[:k])
            ]
            assert values[row, column] == max(free)


def test_news_is_the_standard_score_and_windows_without_ink_come_last() -> None:
    ink = np.array([[[100, 60, 9], [0, 40, 10]]])
    mean, deviation = np.full((2, 3), 50.0), np.full((2, 3), 17.0)
    mean[1, 0] = -1e4  # an empty window that would be the greatest news
    found = puzzle.news(ink, mean, deviation)
    scores = (ink - mean) / (1.15 * 17)
    assert np.array_equal(found < -1000, [[[False, False, True], [True, False, False]]])
    np.testing.assert_allclose(found[found > -1000], scores[found > -1000])
    assert puzzle.key_places(found, 6, 1)[0, -2:].tolist() == [[1, 0], [0, 2]]


def test_a_tie_goes_to_the_upper_left_and_no_room_is_an_error() -> None:
    assert puzzle.key_places(np.zeros((1, 5, 5)), 2, 2)[0].tolist() == [[0, 0], [0, 2]]
    with pytest.raises(ValueError, match="room for 2 of side 3, got 4x4"):
        puzzle.key_places(np.zeros((1, 2, 2)), 2, 3)


def test_the_order_tells_nothing_of_the_places() -> None:
    images = some(60)
    places = puzzle.key_places(puzzle.news(puzzle.ink_of_windows(images, 3), np.zeros((7, 9)), np.ones((7, 9))), 3, 3)
    patches, masks = puzzle.cut(images, places, 3)
    again, same = puzzle.cut(images, places[:, ::-1], 3)
    assert torch.equal(patches, again), "it does not hang on the order in which they were found"
    assert torch.equal(masks, same)
    first = [tuple(images[i, 0, r : r + 3, c : c + 3].ravel()) for i, ((r, c), *_) in enumerate(places)]
    rank = [[tuple(p.flatten().tolist()) for p in patches[i]].index(first[i]) for i in range(60)]
    assert min(rank.count(k) for k in range(3)) >= 10, "the most salient one stands anywhere"


def test_the_places_are_not_always_the_same_ones(data: Dataset) -> None:
    requests = data.train.requests
    assert requests is not None
    assert requests.masks is not None
    mean = requests.masks.double().mean(0)
    assert float(mean.max()) < 0.4
    assert float((mean > 0.1).double().mean()) > 0.5
