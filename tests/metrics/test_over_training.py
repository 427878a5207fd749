"""Scores over training: of snapshots whose classes are known, against validation images alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.data.dataset import Dataset, Split
from baselines.types import ImageShape
from bench.families import family_keys
from bench.job import Setup
from bench.metrics.base import Features, Subject
from bench.metrics.over_training import OverTraining

SHAPE = ImageShape(1, 3, 3, 16)


class Reader:
    """The class is the first pixel modulo 4; features are all pixels."""

    name = "reader"

    def __init__(self, classes: int = 4, logits: bool = True) -> None:
        self.classes, self.logits = classes, logits

    def identity(self) -> dict[str, Any]:
        return {}

    def extract(self, images: Tensor, levels: int) -> Features:
        pixels = images.flatten(1).numpy()
        return Features(
            pixels.astype(float), np.eye(self.classes)[pixels[:, 0] % self.classes] if self.logits else None
        )


def images_of(classes: list[int], n: int, seed: int) -> Tensor:
    """Random images, their classes in turn."""
    images = torch.randint(0, 16, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(classes).repeat(n)[:n]
    return images


def subject_of(*snapshots: list[int], val: int = 80, extractor: Any = None) -> Subject:
    every = list(range(4))
    splits = [Split(images_of(every, n, seed)) for seed, n in enumerate((200, val, 5))]
    taken = {100 * (i + 1): images_of(classes, 60, 10 + i) for i, classes in enumerate(snapshots)}
    dataset = Dataset("toy", SHAPE, *splits, "made", "")
    return Subject(0, dataset=dataset, snapshots=taken, extractor=extractor or Reader())


def test_a_collapse_is_seen_when_it_happens() -> None:
    subject = subject_of([0, 1, 2, 3], [0, 1], [2])
    found = {m.metric: m for m in OverTraining().measure(subject)}
    course = subject.over_training
    assert course["images"] == [100, 200, 300]
    assert course["modes"] == [4, 2, 1]
    assert course["mode_kl"] == [pytest.approx(math.log(4 / k), abs=1e-9) for k in (4, 2, 1)]
    assert course["real"]["modes"] == 4
    assert course["recall"][0] > course["recall"][2]
    assert found["modes_late[reader]"].value == 1.5, "the mean of the second half"
    assert found["mode_kl_late[reader]"].value == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert {m.better for m in found.values()} == {"higher", "lower"}
    assert found["recall_late[reader]"].protocol["split"] == "val"


def test_images_of_the_validation_split_have_all_modes_and_full_precision_and_recall() -> None:
    subject = subject_of([0, 1, 2, 3])
    assert subject.dataset is not None
    subject.snapshots = {7: subject.dataset.val.images}
    OverTraining().measure(subject)
    assert {name: subject.over_training[name] for name in ("modes", "precision", "recall")} == {
        "modes": [4],
        "precision": [1],
        "recall": [1],
    }
    assert subject.over_training["mode_kl"] == [0]


def test_the_test_split_is_not_looked_at() -> None:
    subject, other = subject_of([0, 1], [2]), subject_of([0, 1], [2])
    assert other.dataset is not None
    other.dataset = replace(other.dataset, test=Split(images_of([3], 50, 99)))
    assert OverTraining().measure(subject) == OverTraining().measure(other)
    assert subject.over_training == other.over_training


def test_samples_of_a_class_that_validation_lacks_leave_a_gap_and_no_mean() -> None:
    subject = subject_of([0, 1], [0, 5], extractor=Reader(classes=6))  # real images of classes 0 to 3
    found = {m.metric for m in OverTraining().measure(subject)}
    assert subject.over_training["mode_kl"][1] is None
    assert "mode_kl_late[reader]" not in found
    assert "modes_late[reader]" in found


def test_what_is_missing_is_told() -> None:
    metric = OverTraining()
    assert "snapshots" in str(metric.unavailable(subject_of()))
    assert "more than 3" in str(metric.unavailable(subject_of([0], val=3)))
    assert "does not classify" in str(metric.unavailable(subject_of([0], extractor=Reader(logits=False))))
    assert "none here" in str(
        metric.unavailable(replace(subject_of([0]), extractor=None, extractor_reason="none here"))
    )
    assert metric.unavailable(subject_of([0])) is None


def test_the_extractor_is_part_of_the_key_where_there_are_snapshots_alone(tmp_path: Any) -> None:
    from baselines.data import catalogue

    digits = catalogue.load("digits")
    own, other = Setup(tmp_path, "cpu"), Setup(tmp_path, "cpu", extractor="pixels8x8")

    def key(setup: Setup, snapshots: bool) -> str:
        return family_keys(digits, setup, latent=False, snapshots=snapshots)["train"]["over_training"]

    assert key(own, True) != key(other, True)
    assert key(own, False) == key(other, False)
