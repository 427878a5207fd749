"""Translations taken back: 0 for an oracle, the distance of independent images for noise; and what had to change."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from torch import Tensor

from baselines.contract import Conditions, GenerativeModel, Given, Noise, TranslatesDomains
from baselines.data import catalogue
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import to_unit
from baselines.given import Requests
from baselines.types import Draw, ImageShape
from bench.metrics.attributes import AttributeAccuracy
from bench.metrics.base import Subject
from bench.metrics.images import of_samples, of_split
from bench.metrics.reconstruction import DomainReconstruction

SHAPE = ImageShape(3, 4, 4, 256)


class Translator(GenerativeModel, TranslatesDomains):
    """Writes the wanted value into the first pixel, and then does what its kind does."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.shape, self.kind, self.calls = SHAPE, kind, 0

    def translate(self, images: Tensor, attributes: Tensor) -> Tensor:
        self.calls += 1
        if self.kind == "noise":
            return torch.randint(0, 256, images.shape, generator=torch.Generator().manual_seed(self.calls)).byte()
        done = images.clone()
        if self.kind != "lazy":
            done[:, 0, 0, 0] = attributes[:, 0].to(torch.uint8)
        if self.kind == "lossy":
            done[:, :, 1] = 0
        return done

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        assert given is not None
        assert given.images is not None
        assert given.attributes is not None
        return self.translate(given.images, given.attributes)


def subject_of(kind: str, n: int = 700, drawn: int | None = None) -> Subject:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (n, *SHAPE.chw), generator=generator, dtype=torch.uint8)
    have = torch.randint(0, 200, (n, 1), generator=generator)
    images[:, 0, 0, 0] = have[:, 0].to(torch.uint8)
    want = (have + 1 + torch.randint(0, 50, (n, 1), generator=generator)) % 256
    requests = Requests(Given(images=images, attributes=want), attributes=want, originals=have)
    split = Split(images, attributes=have, requests=requests)
    told = Conditions(attributes={"value": tuple(map(str, range(256)))}, source=SHAPE)
    data = Dataset("toy", SHAPE, split, split, split, "here", "none", conditions=told)
    model = Translator(kind)
    there = model.sample(n, Draw(), Noise(0), requests.at(0, drawn or n).given)
    return Subject(0, data, model, generated=of_samples(there, data), reference=of_split(data), requests=requests)


def error(subject: Subject) -> float:
    (found,) = DomainReconstruction().measure(subject)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    return found.value


def test_an_oracle_that_keeps_the_rest_brings_every_image_back() -> None:
    subject = subject_of("oracle")
    assert subject.generated is not None
    assert subject.requests is not None
    assert subject.requests.given.images is not None
    assert not torch.equal(next(subject.generated.batches(700)), subject.requests.given.images)
    assert error(subject) == 0


def test_noise_is_as_far_as_two_independent_pixels() -> None:
    independent = (256**2 - 1) / (3 * 256 * 255)  # E|u - v| of uniform levels, of a range of 1
    (found,) = DomainReconstruction().measure(subject_of("noise"))
    assert found.low is not None
    assert found.high is not None
    assert found.low - 1e-3 < independent < found.high + 1e-3


def test_what_is_lost_on_the_way_is_counted_pixel_by_pixel() -> None:
    subject = subject_of("lossy")
    assert subject.requests is not None
    assert subject.requests.given.images is not None
    lost = to_unit(subject.requests.given.images[:, :, 1], 256).sum((1, 2)) / SHAPE.dims
    assert error(subject) == pytest.approx(float(lost.mean()), rel=1e-5)


def test_one_that_does_nothing_has_no_error_and_its_note_says_so() -> None:
    (found,) = DomainReconstruction().measure(subject_of("lazy"))
    assert found.value == 0
    assert "lie 0 from their sources" in found.note


def test_a_translation_that_was_asked_for_twice_counts_once() -> None:
    twice = subject_of("lossy", drawn=1400)
    assert twice.generated is not None
    assert len(twice.generated) == 1400
    ours, once = DomainReconstruction().measure(twice)[0], DomainReconstruction().measure(subject_of("lossy"))[0]
    assert (ours.value, ours.low, ours.n) == (once.value, once.low, 700)


def test_it_says_why_it_cannot_be_taken() -> None:
    subject = subject_of("oracle")
    metric = DomainReconstruction()
    assert metric.unavailable(subject) is None
    assert "samples" in str(metric.unavailable(dataclasses.replace(subject, generated=None)))
    assert "translate" in str(metric.unavailable(dataclasses.replace(subject, model=None)))
    assert subject.requests is not None
    unknown = dataclasses.replace(subject.requests, originals=None)
    assert "attributes" in str(metric.unavailable(dataclasses.replace(subject, requests=unknown)))


# Attributes of translations, by the shipped judge on real domains


@functools.cache
def domains() -> Dataset:
    return catalogue.load("digits-domains")


def accuracies(images: Tensor) -> dict[str, float]:
    data = domains()
    subject = Subject(
        0, data, generated=of_samples(images, data), reference=of_split(data), requests=data.test.requests
    )
    assert AttributeAccuracy().unavailable(subject) is None
    return {m.metric.removeprefix("attribute_accuracy"): m.value for m in AttributeAccuracy().measure(subject)}


def test_the_right_answers_have_all_attributes_and_twice_the_images_the_same_accuracy() -> None:
    requests = domains().test.requests
    assert requests is not None
    assert requests.answers is not None
    found = accuracies(requests.answers)
    assert [*found] == ["[ink]", "[inverted]", "[stroke]", "[digit]", "[all]", "[changed]"]
    assert min(found.values()) > 0.95
    assert accuracies(requests.answers.repeat(2, 1, 1, 1)) == found


def test_sources_left_as_they_are_keep_the_digit_and_change_nothing() -> None:
    test = domains().test
    assert test.requests is not None
    assert test.requests.originals is not None
    assert test.requests.given.attributes is not None
    found = accuracies(test.images)
    unchanged = (test.requests.originals == test.requests.given.attributes).double().mean(0)
    for i, name in enumerate(("[ink]", "[inverted]", "[stroke]")):
        assert found[name] == pytest.approx(float(unchanged[i]), abs=0.02)
        assert float(unchanged[i]) > 0.15, "the premise: what need not change makes an idle generator look good"
    assert found["[digit]"] > 0.95
    assert found["[changed]"] < 0.02


def test_noise_has_chance() -> None:
    """Answers to other requests are independent of what was asked: each attribute is met as often as its values are."""
    requests = domains().test.requests
    assert requests is not None
    assert requests.answers is not None
    others = torch.randperm(len(requests), generator=torch.Generator().manual_seed(1))
    found = accuracies(requests.answers[others])
    for name, k in {"[ink]": 4, "[inverted]": 2, "[stroke]": 3, "[digit]": 10, "[all]": 240}.items():
        assert found[name] == pytest.approx(1 / k, abs=0.09), name
    noise = torch.randint(0, 256, requests.answers.shape, generator=torch.Generator().manual_seed(0)).byte()
    assert accuracies(noise)["[all]"] < 0.03
