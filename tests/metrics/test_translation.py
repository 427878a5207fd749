"""Paired error and cycle distance: 0 of an oracle, chance of noise, and what scores take for truth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.contract import Given, Translates
from baselines.data import catalogue
from baselines.data.dataset import Dataset, Split
from baselines.given import Requests
from baselines.types import Conditions, ImageShape
from bench.metrics.attributes import AttributeAccuracy
from bench.metrics.base import Subject
from bench.metrics.extractors import choose_extractor
from bench.metrics.frechet import Frechet
from bench.metrics.images import of_samples, of_split
from bench.metrics.translation import CycleDistance, PairedError, distances

SHAPE = ImageShape(1, 4, 4, 256)
N = 300


def uniform(n: int, seed: int, levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (n, *SHAPE.chw), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


class Negative(nn.Module, Translates):
    """To the negative and back."""

    def translate(self, x: Tensor) -> Tensor:
        return 255 - x

    def back(self, y: Tensor) -> Tensor:
        return 255 - y


class Forgetful(Negative):
    """Back from anything to black."""

    def back(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y)


def subject_of(generated: Tensor | None = None, model: Any = None, **changes: Any) -> Subject:
    """Black and white sources, to be turned to their negatives."""
    sources = (uniform(N, 0, 2) * 255).to(torch.uint8)
    told: dict[str, Any] = {"given": Given(images=sources), "answers": 255 - sources, **changes}
    requests = Requests(**told)
    split = Split(255 - sources, requests=requests)
    data = Dataset("toy", SHAPE, split, split, split, "here", "none", conditions=Conditions(source=SHAPE))
    drawn = None if generated is None else of_samples(generated, data)
    return Subject(0, data, model=model, generated=drawn, reference=of_split(data), requests=requests)


def values(subject: Subject) -> dict[str, float]:
    return {m.metric: m.value for m in PairedError().measure(subject)}


def sources_of(subject: Subject) -> Tensor:
    assert subject.requests is not None
    assert subject.requests.given.images is not None
    return subject.requests.given.images


def test_right_answers_have_no_error_and_sources_that_of_the_identity() -> None:
    sources = sources_of(subject_of())
    assert values(subject_of(255 - sources)) == {"paired_error": 0, "paired_error[source]": 1}
    assert values(subject_of(sources))["paired_error"] == 1


def test_noise_is_half_off_black_and_white_and_the_interval_says_so() -> None:
    found = PairedError().measure(subject_of(uniform(N, 7)))[0]
    assert found.low is not None
    assert found.high is not None
    # |U - a| has mean 1/2 and variance 1/12 for a = 0 or 1: 16 pixels an image, N images
    assert found.high - found.low == pytest.approx(2 * 1.96 / (12 * 16 * N) ** 0.5, rel=0.15)
    assert found.low < 0.5 < found.high
    assert "0.5" in found.note


def test_each_request_counts_once_where_more_images_were_drawn() -> None:
    sources = sources_of(subject_of())
    more = torch.cat([255 - sources, sources[:50]])
    assert values(subject_of(more))["paired_error"] == 0
    assert values(subject_of(255 - sources[:40]))["paired_error"] == 0
    assert PairedError().measure(subject_of(255 - sources[:40]))[0].n == 40


def test_images_of_other_levels_are_compared_as_shares() -> None:
    assert distances(torch.full((1, 1, 2, 2), 16), torch.full((1, 1, 2, 2), 255), 17, 256).tolist() == [0]
    assert distances(torch.full((1, 1, 2, 2), 4), torch.full((1, 1, 2, 2), 0), 17, 256).tolist() == [0.25]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answers": None}, "the data set has no right answers"),
        ({"given": Given(labels=torch.zeros(N))}, "the model was given no images to translate"),
        ({"answers": torch.zeros(N, 1, 2, 2, dtype=torch.uint8)}, "needs samples of the answers' size"),
    ],
)
def test_where_there_is_no_error_it_says_why(changes: dict[str, Any], reason: str) -> None:
    found = PairedError().unavailable(subject_of(uniform(N, 1), **changes))
    assert found is not None
    assert reason in found
    assert PairedError().unavailable(subject_of()) == "no samples were drawn"
    assert PairedError().unavailable(subject_of(uniform(N, 1))) is None


def test_a_cycle_that_loses_nothing_has_distance_zero_and_black_has_the_sources_mean() -> None:
    (closed,) = CycleDistance().measure(subject_of(model=Negative()))
    assert closed.value == 0
    subject = subject_of(model=Forgetful())
    (black,) = CycleDistance().measure(subject)
    assert black.value == pytest.approx(float(sources_of(subject).double().mean()) / 255)
    assert black.low is not None
    assert black.high is not None
    assert black.low < 0.5 < black.high
    assert black.n == N


def test_a_model_that_does_not_translate_has_no_cycle() -> None:
    assert CycleDistance().unavailable(subject_of(model=nn.Identity())) == "the model does not translate both ways"
    subject = subject_of(model=Negative())
    subject.requests = None
    assert CycleDistance().unavailable(subject) == "the model was given no images to translate"


# The data set of outlines, by its own classifier


@pytest.fixture(scope="module")
def outlines() -> Dataset:
    return catalogue.load("digits-outline")


def scored(data: Dataset, generated: Tensor) -> Subject:
    extractor, _ = choose_extractor(data.name, data.shape)
    told = {"generated": of_samples(generated, data), "requests": data.test.requests, "extractor": extractor}
    return Subject(0, data, reference=of_split(data), train=of_split(data, "train"), **told)  # type: ignore[arg-type]


def test_the_frechet_distance_is_to_the_target_domain(outlines: Dataset) -> None:
    requests = outlines.test.requests
    assert requests is not None
    assert requests.answers is not None
    assert requests.given.images is not None
    right, untranslated = (
        Frechet().measure(scored(outlines, images))[0] for images in (requests.answers, requests.given.images)
    )
    assert right.metric == "fd[digits-outline-cnn]"
    assert right.value < 1e-6
    assert untranslated.value > 50


def test_the_classifier_of_outlines_finds_the_digit_in_right_answers_and_chance_in_noise(outlines: Dataset) -> None:
    requests = outlines.test.requests
    assert requests is not None
    assert requests.answers is not None
    (right,) = AttributeAccuracy().measure(scored(outlines, requests.answers))
    assert right.metric == "attribute_accuracy[digit]"
    assert right.value > 0.95
    shuffled = requests.answers[torch.randperm(len(requests), generator=torch.Generator().manual_seed(0))]
    (chance,) = AttributeAccuracy().measure(scored(outlines, shuffled))
    assert chance.low is not None
    assert chance.high is not None
    assert chance.low - 0.02 < 0.1 < chance.high + 0.02
