"""The split rules: class-balanced hash order, and the cut by content."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch

from baselines.data.splitting import Part, content_keys, stratified_order, user_splits
from baselines.errors import UserError


def some_images(n: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, 4, 5), dtype=np.uint8)


def rows(images: torch.Tensor | np.ndarray) -> list[bytes]:
    return [np.asarray(image).tobytes() for image in images]


def test_stratified_order_is_the_written_rule_in_exact_arithmetic() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 157)
    digest = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(labels))]
    place: dict[int, Fraction] = {}
    for label in set(labels.tolist()):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: digest[i])
        place |= {i: Fraction(2 * rank + 1, 2 * len(members)) for rank, i in enumerate(members)}
    expected = sorted(range(len(labels)), key=lambda i: (place[i], digest[i]))
    assert stratified_order(labels).tolist() == expected


def test_every_prefix_of_the_stratified_order_is_class_balanced() -> None:
    labels = np.repeat([0, 1, 2], [500, 300, 37])
    order = stratified_order(labels)
    assert sorted(order.tolist()) == list(range(837))
    for n in (10, 100, 400, 800):
        for label, size in ((0, 500), (1, 300), (2, 37)):
            assert abs((labels[order[:n]] == label).sum() - n * size / 837) <= 1.5


def test_without_own_splits_a_tenth_goes_to_test_and_val_and_each_image_to_one_split() -> None:
    images = some_images(200)
    made = user_splits({"train": Part(images)}, "x")
    assert (len(made.train), len(made.val), len(made.test)) == (160, 20, 20)
    together = rows(made.train.images) + rows(made.val.images) + rows(made.test.images)
    assert sorted(together) == sorted(rows(images))
    hashes = [hashlib.sha256(row).hexdigest() for row in rows(made.test.images)]
    assert hashes == sorted(hashlib.sha256(row).hexdigest() for row in rows(images))[:20]


def test_the_split_does_not_depend_on_the_order_of_the_images() -> None:
    images, labels = some_images(50), np.arange(50)
    shuffled = np.random.default_rng(1).permutation(50)
    a = user_splits({"train": Part(images, labels)}, "x")
    b = user_splits({"train": Part(images[shuffled], labels[shuffled])}, "x")
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(a, split).images, getattr(b, split).images)
        assert torch.equal(getattr(a, split).labels, getattr(b, split).labels)


def test_labels_stay_with_their_images() -> None:
    images = some_images(60)
    made = user_splits({"train": Part(images, np.arange(60))}, "x")
    for split in (made.train, made.val, made.test):
        assert split.labels is not None
        assert rows(split.images) == rows(images[split.labels.numpy()])


def test_copies_of_an_image_never_stand_on_both_sides_of_a_cut() -> None:
    distinct = some_images(30)
    images = distinct[np.random.default_rng(2).integers(0, 30, 400)]
    made = user_splits({"train": Part(images)}, "x")
    seen = [set(rows(split.images)) for split in (made.train, made.val, made.test)]
    assert sum(map(len, seen)) == len(set.union(*seen)) == len(set(rows(images))) == 30


def test_a_users_own_test_split_is_kept_and_val_is_cut_from_train_alone() -> None:
    train, test = some_images(100, 1), some_images(13, 2)
    made = user_splits({"train": Part(train), "test": Part(test)}, "x")
    assert sorted(rows(made.test.images)) == sorted(rows(test))
    assert sorted(rows(made.train.images) + rows(made.val.images)) == sorted(rows(train))
    assert len(made.val) == 10
    assert "own train, test" in made.note
    assert "cut off for val" in made.note


def test_a_test_image_that_is_trained_on_is_told() -> None:
    train, test = some_images(20, 1), some_images(5, 2)
    test[3] = train[7]
    parts = {"train": Part(train), "val": Part(some_images(5, 3)), "test": Part(test)}
    assert "1 of the test images also occur" in user_splits(parts, "x").note
    test[3] += 1
    assert "also occur" not in user_splits(parts, "x").note


@pytest.mark.parametrize(("n", "works"), [(1, False), (2, False), (3, True)])
def test_three_different_images_are_the_fewest_that_can_be_split(n: int, works: bool) -> None:
    images = np.repeat(some_images(n), 4, axis=0)
    if works:
        made = user_splits({"train": Part(images)}, "x")
        assert (len(made.train), len(made.val), len(made.test)) == (4, 4, 4)
    else:
        with pytest.raises(UserError, match=f"x: expected at least 3 different images to split, got {n}"):
            user_splits({"train": Part(images)}, "x")


def test_a_missing_train_and_an_empty_part_are_refused() -> None:
    with pytest.raises(UserError, match="expected images for train, got only test, val"):
        user_splits({"test": Part(some_images(3)), "val": Part(some_images(3))}, "x")
    with pytest.raises(UserError, match="expected images in test, got none"):
        user_splits({"train": Part(some_images(9)), "test": Part(some_images(0))}, "x")


def test_content_keys_do_not_depend_on_the_memory_layout() -> None:
    images = some_images(4, channels=3)
    other_layout = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not other_layout.flags.c_contiguous
    assert content_keys(images).tolist() == content_keys(other_layout).tolist()
