"""Attribute accuracy: one for a generator that does as asked, chance for noise, and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from baselines.contract import Given
from baselines.data.dataset import Dataset, Split
from baselines.given import Requests
from baselines.types import Conditions, ImageShape
from bench.metrics import attributes
from bench.metrics.attributes import AttributeAccuracy
from bench.metrics.base import Array, Subject
from bench.metrics.images import of_samples, of_split

SHAPE = ImageShape(1, 2, 2, 256)
CHOICES = (4, 3)


class Reader:
    """Reads what an image shows from its first two pixels."""

    name = "reader"
    manifest: Mapping[str, Any] = {"of_attributes": {"ink": 1.0, "ground": 1.0, "all": 1.0}, "accuracy": {"test": 1.0}}

    def identity(self) -> Mapping[str, Any]:
        return {"weights_sha256": "none"}

    def judge(self, images: Tensor, levels: int) -> dict[str, Array]:
        told = images.flatten(1).numpy()
        one_hot = {name: np.eye(k)[told[:, i] % k] for i, (name, k) in enumerate(zip(("ink", "ground"), CHOICES))}  # noqa: B905
        return {name: log_softmax(5 * values, axis=1) for name, values in one_hot.items()}


def drawn(values: Tensor) -> Tensor:
    """Images that show these values."""
    images = torch.zeros(len(values), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = values[:, 0].to(torch.uint8), values[:, 1].to(torch.uint8)
    return images


def subject_of(images: Tensor, wanted: Tensor, unseen: Tensor | None = None) -> Subject:
    requests = Requests(Given(tokens=wanted), attributes=wanted, unseen=unseen)
    split = Split(images, requests=requests)
    told = Conditions(attributes={"ink": ("a", "b", "c", "d"), "ground": ("x", "y", "z")})
    data = Dataset("toy", SHAPE, split, split, split, "here", "none", conditions=told)
    return Subject(0, data, generated=of_samples(images, data), reference=of_split(data), requests=requests)


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "judge_for", lambda dataset: Reader())


@pytest.fixture
def wanted() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(k, (600,), generator=generator) for k in CHOICES], 1)


def values(subject: Subject) -> dict[str, float]:
    return {m.metric: m.value for m in AttributeAccuracy().measure(subject)}


def test_a_generator_that_does_as_asked_has_one(wanted: Tensor) -> None:
    assert values(subject_of(drawn(wanted), wanted)) == {
        "attribute_accuracy[ink]": 1,
        "attribute_accuracy[ground]": 1,
        "attribute_accuracy[all]": 1,
    }


def test_noise_has_chance_and_intervals_hold_it(wanted: Tensor) -> None:
    other = wanted[torch.randperm(len(wanted), generator=torch.Generator().manual_seed(1))]
    found = {m.metric: m for m in AttributeAccuracy().measure(subject_of(drawn(other), wanted))}
    for name, chance in {"ink": 1 / 4, "ground": 1 / 3, "all": 1 / 12}.items():
        m = found[f"attribute_accuracy[{name}]"]
        assert m.low is not None
        assert m.high is not None
        assert m.low - 0.02 < chance < m.high + 0.02


def test_one_wrong_attribute_is_told_apart_and_unseen_requests_are_counted_by_themselves(wanted: Tensor) -> None:
    shown, unseen = wanted.clone(), torch.arange(600) < 100
    shown[:50, 1] = (shown[:50, 1] + 1) % 3
    found = values(subject_of(drawn(shown), wanted, unseen))
    assert found["attribute_accuracy[ink]"] == 1
    assert found["attribute_accuracy[ground]"] == pytest.approx(550 / 600)
    assert found["attribute_accuracy[all]"] == pytest.approx(550 / 600)
    assert found["attribute_accuracy[unseen]"] == pytest.approx(0.5)


def test_requests_go_round_where_there_are_more_images(wanted: Tensor) -> None:
    subject = subject_of(drawn(wanted.repeat(2, 1)[:900]), wanted)
    assert values(subject)["attribute_accuracy[all]"] == 1


def test_without_requests_it_says_why(wanted: Tensor) -> None:
    subject = subject_of(drawn(wanted), wanted)
    subject.requests = None
    assert AttributeAccuracy().unavailable(subject) == "the model was asked for no attributes"
