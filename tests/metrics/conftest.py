"""What the metric tests share: a small data set, an extractor that computes features by formula, subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.data.dataset import Dataset, Split
from baselines.types import ImageShape
from bench.metrics.base import Features, Subject
from bench.metrics.images import of_samples, of_split


class PatchExtractor:
    """Four pixels as features, ten of their sums as logits; counts how often it is asked."""

    name = "patch"

    def __init__(self, logits: bool = True) -> None:
        self.calls = 0
        self.logits = logits

    def identity(self) -> Mapping[str, Any]:
        return {"weights_sha256": "none", "resize": "none"}

    def extract(self, images: Tensor, levels: int) -> Features:
        self.calls += 1
        x = images.flatten(1).double().numpy() / (levels - 1)
        return Features(x[:, :4], 4 * x[:, :10] if self.logits else None)


def make_subject(test: int = 120, samples: int = 150, seed: int = 0, side: int = 4, extractor: Any = None) -> Subject:
    generator = torch.Generator().manual_seed(seed)

    def images(n: int) -> Tensor:
        return torch.randint(17, (n, 1, side, side), generator=generator, dtype=torch.uint8)

    splits = [Split(images(n)) for n in (10, 10, test)]
    data = Dataset("noise", ImageShape(1, side, side, 17), *splits, source="generated", note="")
    return Subject(
        seed,
        generated=of_samples(images(samples), data),
        reference=of_split(data),
        train=of_split(data, "train"),
        extractor=extractor or PatchExtractor(),
    )


@pytest.fixture
def subject() -> Callable[..., Subject]:
    return make_subject


@pytest.fixture
def unclassified() -> PatchExtractor:
    return PatchExtractor(logits=False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
