"""A critic's estimate where the distance is known, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.contract import Draw, GenerativeModel, Given, HasCritic, Noise
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import to_signed
from baselines.types import ImageShape
from bench.metrics.base import Subject
from bench.metrics.wasserstein import Wasserstein, gap
from bench.stats import normal_interval

SHAPE = ImageShape(1, 3, 3, 256)


def levels_of(n: int, first: int, last: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(first, last, (n, *SHAPE.chw), generator=generator, dtype=torch.uint8)


class Shifted(GenerativeModel, HasCritic):
    """Draws images as the data are but so many levels darker; its critic is the sum over sqrt(D), of slope `slope`."""

    def __init__(self, darker: int, slope: float = 1.0) -> None:
        super().__init__()
        self.shape = SHAPE
        self.darker, self.slope = darker, slope
        self.weight = nn.Parameter(torch.ones(()))

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        levels = 100 + (noise.uniform("x", n, SHAPE.chw) * 100).floor()
        return (levels - self.darker).to(torch.uint8)

    def criticise(self, images: Tensor) -> Tensor:
        return self.slope * self.weight * images.flatten(1).sum(1) / SHAPE.dims**0.5


def subject_of(model: GenerativeModel | None, test: int = 1500) -> Subject:
    splits = [Split(levels_of(n, 100, 200, seed)) for seed, n in enumerate((1500, 20, test))]
    return Subject(0, dataset=Dataset("toy", SHAPE, *splits, "made", ""), model=model)


@pytest.mark.parametrize("darker", [0, 5, 60])
def test_images_that_are_darker_by_so_much_are_so_far_away(darker: int) -> None:
    """A shift of every pixel by c is a distance of c sqrt(D), and a linear critic of slope 1 attains it."""
    truth = darker * 2 / 255 * SHAPE.dims**0.5
    found = {m.metric: m for m in Wasserstein().measure(subject_of(Shifted(darker)))}
    assert set(found) == {"wasserstein[test]", "wasserstein[train]"}
    for m in found.values():
        assert m.value == pytest.approx(truth, abs=0.05)
        assert m.low is not None
        assert m.high is not None
        assert m.low - 0.01 <= truth <= m.high + 0.01
        assert "1 on average, 1 to 1" in m.note


def test_a_critic_of_another_slope_says_so() -> None:
    (m, _) = Wasserstein().measure(subject_of(Shifted(20, slope=2.5)))
    assert "2.5 on average, 2.5 to 2.5" in m.note


def test_a_critic_that_knows_the_train_images_by_heart_reads_more_on_them() -> None:
    subject = subject_of(Shifted(0))
    assert subject.dataset is not None
    train = to_signed(subject.dataset.train.images, 256)

    class Memoriser(Shifted):
        def criticise(self, images: Tensor) -> Tensor:
            return -torch.cdist(images.flatten(1), train.flatten(1)).amin(1)

    subject.model = Memoriser(0)
    found = {m.metric: m.value for m in Wasserstein().measure(subject)}
    assert found["wasserstein[train]"] > found["wasserstein[test]"] + 0.1
    assert found["wasserstein[test]"] == pytest.approx(0, abs=0.05)


def test_the_interval_covers_the_difference_of_the_means() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        found = gap(rng.normal(1.3, 2, 80), rng.normal(0.3, 1, 50))
        low, high = normal_interval(found.value, found.error)
        covered += low <= 1.0 <= high
    assert 365 <= covered <= 395


def test_it_is_of_models_with_a_critic_alone() -> None:
    assert Wasserstein().unavailable(subject_of(None)) == "the model has no critic"
    assert Wasserstein().unavailable(subject_of(Shifted(0))) is None
    assert "at least 2" in str(Wasserstein().unavailable(subject_of(Shifted(0), test=1)))
