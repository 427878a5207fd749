"""Places and appearance of key patches: exact for a model that solves the puzzle, chance for one that guesses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.contract import Draw, GenerativeModel, Given, Noise, PlacesParts
from baselines.data import catalogue
from baselines.data.dataset import Dataset
from baselines.noise import derive_seed
from bench.metrics import parts
from bench.metrics.base import Subject
from bench.metrics.images import of_samples, of_split
from bench.metrics.parts import AppearanceDistance, MaskOverlap


@pytest.fixture(scope="module")
def data() -> Dataset:
    return catalogue.load("digits-puzzle")


class Oracle(GenerativeModel, PlacesParts):
    """Knows the answer to each request by its patches; `shifted` requests on, it answers another one."""

    def __init__(self, data: Dataset, shifted: int = 0, sure: float = 1.0) -> None:
        super().__init__()
        self.shape = data.shape
        requests = data.test.requests
        assert requests is not None
        self.requests, self.shifted, self.sure = requests, shifted, sure
        self.seeds: set[int] = set()

    def place(self, n: int, draw: Draw, noise: Noise, given: Given) -> tuple[Tensor, Tensor]:
        self.seeds.add(noise.seed)
        patches, known = given.patches, self.requests.given.patches
        assert patches is not None
        assert known is not None
        same = (patches[:, None] == known[None]).flatten(2).all(2)
        index = (same.float().argmax(1) + self.shifted) % len(known)
        assert self.requests.answers is not None
        assert self.requests.masks is not None
        return self.requests.answers[index], self.requests.masks[index] * self.sure

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        assert given is not None
        return self.place(n, draw, noise, given)[0]


def subject_of(data: Dataset, model: GenerativeModel, n: int | None = None, images: Tensor | None = None) -> Subject:
    requests = data.test.requests
    assert requests is not None
    n = n or len(requests)
    drawn = model.sample(n, Draw(), Noise(0), requests.at(0, n).given) if images is None else images
    samples = of_samples(drawn, data)
    return Subject(7, data, model, Draw(), samples, requests, of_split(data))


def overlap(subject: Subject) -> dict[str, float]:
    return {m.metric: m.value for m in MaskOverlap().measure(subject)}


def distance(subject: Subject) -> dict[str, float]:
    return {m.metric: m.value for m in AppearanceDistance().measure(subject)}


# Places


def test_overlap_is_intersection_over_union() -> None:
    masks = torch.zeros(4, 1, 4, 4, dtype=torch.bool)
    masks[0, 0, :2, :2] = masks[1, 0, 1:3, :2] = masks[2, 0, 2:, 2:] = True
    first = masks[:1].expand(4, -1, -1, -1)
    np.testing.assert_allclose(parts.overlaps(masks, first), [1, 2 / 6, 0, 0])
    assert parts.overlaps(masks[3:], masks[3:]).tolist() == [1]


def test_the_best_fixed_mask_is_the_best_of_all_levels() -> None:
    true = torch.rand(40, 1, 5, 5, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.05, 0.9, 25).view(
        5, 5
    )
    found = parts.best_fixed_mask(true)
    best = parts.overlaps(found.expand_as(true), true).mean()
    levels = [parts.overlaps((true.sum(0, keepdim=True) >= n).expand_as(true), true).mean() for n in range(1, 41)]
    assert best >= max(levels)
    frequency = true.double().mean(0, keepdim=True)
    assert float(frequency[found].min()) >= float(frequency[~found].max()), "a threshold makes it"


def test_an_oracle_puts_all_patches_right(data: Dataset) -> None:
    assert overlap(subject_of(data, Oracle(data)))["mask_iou"] == 1
    unsure = overlap(subject_of(data, Oracle(data, sure=0.49)))["mask_iou"]
    assert unsure == 0, "what it holds for less likely than not, it puts nowhere"


def test_another_images_places_are_chance_and_the_mean_mask_is_told_beside(data: Dataset) -> None:
    model = Oracle(data, shifted=1)
    subject = subject_of(data, model)
    found = {m.metric: m for m in MaskOverlap().measure(subject)}
    ours, fixed = found["mask_iou"], found["mask_iou[mean-mask]"]
    assert data.test.requests is not None
    masks = data.test.requests.masks
    assert masks is not None
    both, either = (masks & masks.roll(-1, 0)).sum((1, 2, 3)), (masks | masks.roll(-1, 0)).sum((1, 2, 3))
    assert ours.value == pytest.approx(float((both / either).mean()))
    assert ours.value < fixed.value < 0.3
    assert f"{ours.value / fixed.value:.2f} times" in ours.note
    for m in (ours, fixed):
        assert m.low is not None
        assert m.high is not None
        assert m.low < m.value < m.high
        assert m.n == 360
    assert model.seeds >= {derive_seed(7, "sample")}, "asked with the noise of the images that were drawn"


def test_a_request_counts_once_where_more_images_were_drawn(data: Dataset) -> None:
    found = MaskOverlap().measure(subject_of(data, Oracle(data), n=500))
    assert [m.n for m in found] == [360, 360]
    assert MaskOverlap().measure(subject_of(data, Oracle(data), n=50))[0].n == 50


# Appearance


def test_an_oracle_shows_the_patches_where_they_lay(data: Dataset) -> None:
    assert distance(subject_of(data, Oracle(data))) == {"appearance_l1": 0, "appearance_l1[anywhere]": 0}


def test_another_image_is_at_the_distance_that_the_note_calls_chance(data: Dataset) -> None:
    found = AppearanceDistance().measure(subject_of(data, Oracle(data, shifted=1)))
    for m in found:
        assert f"{m.value:.3f} in the next request's true image" in m.note
    there, anywhere = (m.value for m in found)
    assert 0 < anywhere < there


def test_noise_is_at_the_distance_of_uniform_numbers(data: Dataset) -> None:
    noise = torch.randint(0, 256, (360, 1, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    found = distance(subject_of(data, Oracle(data), images=noise))
    assert data.test.requests is not None
    assert data.test.requests.given.patches is not None
    x = data.test.requests.given.patches.double() / 255
    assert found["appearance_l1"] == pytest.approx(float((x**2 - x + 0.5).mean()), abs=0.01)  # E|u - x|


def test_a_patch_that_is_shown_elsewhere_is_found_there(data: Dataset) -> None:
    requests = data.test.requests
    assert requests is not None
    moved = data.test.images.roll(3, 3)
    found = distance(subject_of(data, Oracle(data), images=moved))
    assert found["appearance_l1"] > 0.2
    assert found["appearance_l1[anywhere]"] < 0.1 * found["appearance_l1"] + 0.05


def test_distances_are_means_of_absolute_differences() -> None:
    images, answers = torch.zeros(1, 2, 3, 3, dtype=torch.uint8), torch.zeros(1, 2, 3, 3, dtype=torch.uint8)
    answers[0, 0, 0, 0] = 51
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    mask[..., :2, :2] = True
    assert parts.distances_there(images, answers, mask, 256)[0] == pytest.approx(0.2 / 8)
    patches = torch.full((1, 1, 2, 2, 2), 51, dtype=torch.uint8)
    images[0, :, 1:, 1:] = 102
    images[0, 0, 1, 1], images[0, 0, 2, 2] = 60, 70  # the lower right window alone holds both
    assert parts.distances_anywhere(images, patches, 256)[0] == pytest.approx((9 + 19 + 6 * 51) / 8 / 255)


# What cannot be measured


def test_what_is_missing_is_said(data: Dataset) -> None:
    subject = subject_of(data, Oracle(data))
    for metric in (MaskOverlap(), AppearanceDistance()):
        assert metric.unavailable(subject) is None
        assert metric.unavailable(dataclasses.replace(subject, generated=None)) == "no samples were drawn"
    assert MaskOverlap().unavailable(dataclasses.replace(subject, model=None)) == "the model puts no patches anywhere"
    assert (
        AppearanceDistance().unavailable(dataclasses.replace(subject, requests=None))
        == "the model was given no patches"
    )
    assert subject.requests is not None
    hidden = dataclasses.replace(subject.requests, masks=None)
    for metric in (MaskOverlap(), AppearanceDistance()):
        reason = metric.unavailable(dataclasses.replace(subject, requests=hidden))
        assert reason == "where the patches lay is not known"
