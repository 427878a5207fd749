"""Scores of inferred codes: the information of channels whose information is known, and clusters that are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.contract import Codes, Inferred, InfersCodes, Noise
from baselines.data.dataset import Dataset, Split
from baselines.types import ImageShape
from bench.metrics.base import Subject
from bench.metrics.codes import IMAGES, ClusterAccuracy, InformationBound, matching
from bench.record import Measurement

SHAPE = ImageShape(1, 1, 2, 256)


class Channel(InfersCodes):
    """Writes the category into the first pixel, wrongly in a share of images, and a continuous code into the second.

    It reads them by the exact posterior of the category, and by a normal distribution about the second pixel's level.
    """

    continuous_codes = 1

    def __init__(self, categories: int = 5, wrong: float = 0.0, bins: int = 16, reads: bool = True) -> None:
        self.categories, self.wrong, self.bins, self.reads = categories, wrong, bins, reads
        self.std = 2 / bins / math.sqrt(12)  # of a code within its bin

    def draw_codes(self, n: int, noise: Noise) -> Codes:
        category = (noise.uniform("k", n, (1,))[:, 0] * self.categories).long()
        return Codes(category, 2 * noise.uniform("c", n, (1,)) - 1)

    def generate(self, codes: Codes, noise: Noise) -> Tensor:
        n = len(codes.category)
        u, other = noise.uniform("flip", n, (2,)).unbind(1)
        shift = torch.where(u < self.wrong, 1 + (other * (self.categories - 1)).long(), 0)
        level = ((codes.continuous[:, 0] + 1) / 2 * self.bins).floor()
        images = torch.stack([(codes.category + shift) % self.categories, level], 1)
        return images.to(torch.uint8).view(n, 1, 1, 2)

    def infer(self, x: Tensor) -> Inferred:
        k, level = x.flatten(1).long().unbind(1)
        if not self.reads:
            flat = torch.full((len(x), self.categories), -math.log(self.categories))
            return Inferred(flat, torch.zeros(len(x), 1), torch.full((len(x), 1), -0.5 * math.log(3)))
        p = torch.full((len(x), self.categories), self.wrong / (self.categories - 1))
        p[torch.arange(len(x)), k % self.categories] = 1 - self.wrong
        mean = (level + 0.5) / self.bins * 2 - 1
        return Inferred(p.log(), mean[:, None], torch.full((len(x), 1), math.log(self.std)))


def subject_of(model: object, dataset: Dataset | None = None) -> Subject:
    return Subject(0, dataset=dataset, model=model)  # type: ignore[arg-type]


def bounds(model: object) -> dict[str, Measurement]:
    return {m.metric: m for m in InformationBound().measure(subject_of(model))}


def test_a_generator_that_shows_its_code_reaches_the_entropy() -> None:
    found = bounds(Channel(categories=7))
    assert found["mi_bound[category]"].value == pytest.approx(math.log(7), abs=1e-6)
    assert f"{math.log(7):.4f}" in found["mi_bound[category]"].note
    assert found["mi_bound[category]"].n == IMAGES


@pytest.mark.parametrize("wrong", [0.1, 0.4])
def test_with_the_exact_posterior_the_bound_is_the_channels_information(wrong: float) -> None:
    m = bounds(Channel(wrong=wrong))["mi_bound[category]"]
    truth = math.log(5) + (1 - wrong) * math.log(1 - wrong) + wrong * math.log(wrong / 4)
    assert m.low is not None
    assert m.high is not None
    assert m.low - 0.02 < truth < m.high + 0.02
    assert m.high - m.low < 0.2


def test_a_continuous_code_known_up_to_its_bin_has_the_gaussians_closed_form() -> None:
    m = bounds(Channel(bins=16))["mi_bound[continuous 1]"]
    # the error is uniform in the bin, of width 1/8, and Q has its variance: E[-log Q] = log(2 pi e s^2) / 2
    truth = math.log(2) - 0.5 * math.log(2 * math.pi * math.e / 12 / 64)
    assert m.value == pytest.approx(truth, abs=0.03)
    assert m.value < math.log(16), "below the channel's own information"


def test_a_model_that_reads_nothing_has_no_information() -> None:
    found = bounds(Channel(reads=False))
    assert found["mi_bound[category]"].value == pytest.approx(0, abs=1e-6)
    truth = math.log(2) - 0.5 * math.log(2 * math.pi * math.e / 3)  # a Gaussian for a uniform code
    assert found["mi_bound[continuous 1]"].value == pytest.approx(truth, abs=0.03)
    assert truth < 0


def test_being_wrong_and_sure_costs_more_than_nothing() -> None:
    class Sure(Channel):
        def infer(self, x: Tensor) -> Inferred:
            told = super().infer(x)
            p = torch.full_like(told.log_probabilities, 0.01 / 4)
            p[torch.arange(len(x)), told.log_probabilities.argmax(1)] = 0.99
            return Inferred(p.log(), told.mean, told.log_std)

    assert bounds(Sure(wrong=0.8))["mi_bound[category]"].value < -1


# Clusters


def labelled(labels: Tensor, shown: Tensor) -> Split:
    """Images that show a category in their first pixel."""
    images = torch.zeros(len(labels), 1, 1, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = shown.to(torch.uint8)
    return Split(images, labels)


def data_of(val: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Dataset:
    splits = labelled(*val), labelled(*val), labelled(*test)
    return Dataset("toy", SHAPE, *splits, "here", "none", classes=5)


def labels_of(n: int, seed: int) -> Tensor:
    return torch.randint(5, (n,), generator=torch.Generator().manual_seed(seed))


def accuracy(dataset: Dataset, categories: int = 5) -> Measurement:
    (m,) = ClusterAccuracy().measure(subject_of(Channel(categories=categories), dataset))
    return m


def test_clusters_that_are_classes_under_other_names_are_all_right() -> None:
    permutation = torch.tensor([3, 0, 4, 1, 2])
    val, test = labels_of(100, 0), labels_of(300, 1)
    m = accuracy(data_of((val, permutation[val]), (test, permutation[test])))
    assert m.value == 1
    assert m.n == 300
    assert m.low is not None
    assert 0.98 < m.low < 1


def test_categories_that_tell_nothing_have_chance() -> None:
    val, test = labels_of(500, 0), labels_of(2000, 1)
    m = accuracy(data_of((val, labels_of(500, 2)), (test, labels_of(2000, 3))))
    assert m.low is not None
    assert m.high is not None
    assert m.low - 0.01 < 0.2 < m.high + 0.01
    largest = float(test.bincount().max()) / 2000
    assert f"{largest:.3f} at most" in m.note


def test_the_matching_is_chosen_on_validation_images_and_not_on_the_test() -> None:
    val, test = labels_of(100, 0), labels_of(300, 1)
    shifted = (test + 1) % 5
    m = accuracy(data_of((val, val), (test, shifted)))
    assert m.value == 0, "a matching chosen on the test images would score one"


def test_two_classes_in_one_category_count_once_and_a_split_class_by_its_larger_part() -> None:
    test = torch.arange(5).repeat_interleave(20)
    merged = torch.where(test == 4, 3, test)
    assert accuracy(data_of((test, merged), (test, merged))).value == pytest.approx(0.8)
    split = torch.where(test == 4, 3, test)
    split[:8] = 4  # of class 0, whose larger part stays category 0
    assert accuracy(data_of((test, split), (test, split))).value == pytest.approx(0.72)


@pytest.mark.parametrize(("count", "classes"), [(4, 4), (3, 5), (5, 3)])
def test_the_matching_is_the_best_of_all_one_to_one_matchings(count: int, classes: int) -> None:
    rng = np.random.default_rng(count)
    categories, labels = rng.integers(count, size=40), rng.integers(classes, size=40)
    found = matching(categories, labels, count, classes)
    kept = found[found >= 0]
    assert len(set(kept)) == len(kept) == min(count, classes)
    padded = list(range(classes)) + [-1] * max(count - classes, 0)
    best = max((np.array(p)[categories] == labels).sum() for p in itertools.permutations(padded, count))
    assert (found[categories] == labels).sum() == best


def test_what_cannot_be_taken_says_why() -> None:
    assert InformationBound().unavailable(subject_of(object())) == "the model infers no codes"
    assert ClusterAccuracy().unavailable(subject_of(object())) == "the model infers no codes"
    split = Split(torch.zeros(3, 1, 1, 2, dtype=torch.uint8))
    unlabelled = Dataset("toy", SHAPE, split, split, split, "here", "none")
    assert ClusterAccuracy().unavailable(subject_of(Channel(), unlabelled)) == "the data have no classes"
    assert InformationBound().unavailable(subject_of(Channel(), unlabelled)) is None
