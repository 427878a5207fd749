"""How long the metrics take; run by `tox -e perf` and the gate. Beside other libraries: `bench.peers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import bench
from baselines.data import catalogue as data_catalogue
from bench.metrics import catalogue
from bench.metrics.base import Subject
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import of_samples, of_split
from bench.metrics.inception import InceptionExtractor
from bench.metrics.kernel import kernel_distance
from bench.metrics.manifold import all_four, density_coverage, precision_recall
from bench.peers.inception_weights import save_weights

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]
Compare = Callable[..., dict[str, Any]]

ROUNDS = 5  # the gate judges by the rounds, and needs so many


@pytest.fixture(scope="module", params=[1000, 5000])
def pair(request: pytest.FixtureRequest) -> dict[str, Array]:
    """N real and N generated points in 2048 dimensions with a decaying spectrum, as Inception's features have."""
    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, 2049))
    return {name: rng.normal(size=(request.param, 2048)) * spectrum + 0.3 for name in ("real", "generated")}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights"))


def test_frechet_distance(benchmark: Any, pair: dict[str, Array]) -> None:
    assert benchmark.pedantic(lambda: frechet_distance(**pair), rounds=ROUNDS, warmup_rounds=1) > 0


def test_kernel_distance(benchmark: Any, pair: dict[str, Array]) -> None:
    found = benchmark.pedantic(lambda: kernel_distance(**pair), rounds=ROUNDS, warmup_rounds=1)
    assert abs(found.value) < 1e-2, "the premise: two samples of one distribution"


def test_four_of_one_pass(compare: Compare, pair: dict[str, Array]) -> None:
    contenders = {
        "trilemma": lambda: all_four(**pair),
        "one pair after the other": lambda: (precision_recall(**pair), density_coverage(**pair)),
    }
    found = compare(f"Precision, recall, density, coverage, N = {len(pair['real'])}", contenders, rounds=3)
    assert found["trilemma"] == found["one pair after the other"]


def random_images(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8)


def test_features_of_inception(benchmark: Any, weights: Path) -> None:
    images, extractor = random_images(16, 0), InceptionExtractor(weights)
    found = benchmark.pedantic(lambda: extractor.extract(images, 256).values, rounds=ROUNDS, warmup_rounds=1)
    assert found.shape == (16, 2048)


def test_a_second_evaluation_against_the_same_reference(compare: Compare, weights: Path, tmp_path: Path) -> None:
    reference, samples = random_images(200, 1), random_images(40, 2)

    def evaluate(cache: Path | bool) -> float:
        found = bench.evaluate(samples, reference, extractor="inception", weights=weights, metrics=["kid"], cache=cache)
        return found.value("kid[inception]")

    contenders = {"second, features kept": lambda: evaluate(tmp_path), "first": lambda: evaluate(False)}
    found = compare("The same 40 samples against 200 real images again, Inception", contenders, rounds=2)
    assert found["first"] == pytest.approx(found["second, features kept"], rel=1e-6)


def test_all_feature_metrics_of_one_draw_on_digits(benchmark: Any) -> None:
    data = data_catalogue.load("digits")
    extractor = ClassifierExtractor(SPECS["digits-cnn"])
    drawn = [metric for metric in catalogue.METRICS if metric.scope == "draw"]

    def measure() -> int:
        subject = Subject(
            0,
            generated=of_samples(data.development, data),
            reference=of_split(data),
            train=of_split(data, "train"),
            extractor=extractor,
        )
        return sum(len(metric.measure(subject)) for metric in drawn if metric.unavailable(subject) is None)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert measure() >= len(drawn)
    benchmark.pedantic(measure, rounds=8)  # the gate judges by the rounds, and needs 5
    torch.set_num_threads(threads)
