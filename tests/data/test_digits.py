"""The embedded digits: their fixed split."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from baselines.data import digits
from baselines.data.dataset import Dataset, Split


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits.load()


def pairs(split: Split) -> list[tuple[int, bytes]]:
    assert split.labels is not None
    return [(int(y), x.numpy().tobytes()) for x, y in zip(split.images, split.labels, strict=True)]


def test_the_splits_together_are_scikit_learns_digits_each_image_once(data: Dataset) -> None:
    pixels, labels = load_digits(return_X_y=True)
    expected = [(int(y), x.astype(np.uint8).tobytes()) for x, y in zip(pixels, labels, strict=True)]
    assert len(set(expected)) == 1797  # so that equal lists mean disjoint splits
    assert sorted(pairs(data.train) + pairs(data.val) + pairs(data.test)) == sorted(expected)


def test_sizes_shape_and_levels(data: Dataset) -> None:
    assert [len(split) for split in (data.train, data.val, data.test)] == [1257, 180, 360]
    assert tuple(data.shape) == (1, 8, 8, 17)
    assert data.train.images.shape[1:] == data.shape.chw
    assert int(data.development.max()) == data.shape.levels - 1
    assert data.classes == 10


def test_each_split_holds_the_classes_in_their_overall_shares(data: Dataset) -> None:
    shares = np.bincount(load_digits().target) / 1797
    for split in (data.train, data.val, data.test):
        assert split.labels is not None
        assert np.abs(np.bincount(split.labels) - len(split) * shares).max() <= 1.5


def test_loading_twice_gives_one_fingerprint(data: Dataset) -> None:
    assert digits.load().fingerprint() == data.fingerprint()
