"""How long the metrics take beside the libraries that people use; run by `tox -e perf`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

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
from bench.peers.inception_weights import Images, save_weights

pytestmark = pytest.mark.slow

Array = NDArray[np.float64]
Compare = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", params=[1000, 5000])
def pair(request: pytest.FixtureRequest) -> dict[str, Array]:
    """N real and N generated points in 2048 dimensions with a decaying spectrum, as Inception's features have."""
    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, 2049))
    return {name: rng.normal(size=(request.param, 2048)) * spectrum + 0.3 for name in ("real", "generated")}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights"))


def at(pair: dict[str, Array]) -> str:
    return f"N = {len(pair['real'])}, d = 2048"


def tensors(pair: dict[str, Array]) -> list[Tensor]:
    return [torch.from_numpy(pair[name]) for name in ("generated", "real")]


def by_sqrtm(pair: dict[str, Array]) -> float:
    """As the first implementations of FID have it (Heusel et al. 2017)."""
    mean, cov = [x.mean(0) for x in pair.values()], [np.cov(x, rowvar=False) for x in pair.values()]
    cross = np.trace(linalg.sqrtm(cov[0] @ cov[1]).real)
    return float(((mean[0] - mean[1]) ** 2).sum() + np.trace(cov[0]) + np.trace(cov[1]) - 2 * cross)


def test_frechet_distance(compare: Compare, pair: dict[str, Array]) -> None:
    def fidelity() -> float:
        statistics = [fid_features_to_statistics(x) for x in tensors(pair)]
        return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])

    contenders = {
        "trilemma": lambda: frechet_distance(**pair),
        "torch-fidelity": fidelity,
        "scipy sqrtm": lambda: by_sqrtm(pair),
    }
    found = compare(f"Fréchet distance, {at(pair)}", contenders, rounds=3)
    assert found["torch-fidelity"] == pytest.approx(found["trilemma"], rel=1e-3)
    assert found["scipy sqrtm"] == pytest.approx(found["trilemma"], rel=1e-3)


def test_kernel_distance(compare: Compare, pair: dict[str, Array]) -> None:
    def fidelity() -> float:
        found = kid_features_to_metric(*tensors(pair), kid_subsets=100, kid_subset_size=1000, verbose=False)
        return float(found["kernel_inception_distance_mean"])

    contenders = {"trilemma": lambda: kernel_distance(**pair).value, "torch-fidelity": fidelity}
    found = compare(f"KID, {at(pair)} (torch-fidelity: 100 subsets of 1000)", contenders, rounds=3)
    assert found["torch-fidelity"] == pytest.approx(found["trilemma"], abs=1e-3)


def test_precision_and_recall(compare: Compare, pair: dict[str, Array]) -> None:
    def fidelity() -> tuple[float, float]:
        found = prc_features_to_metric(*tensors(pair), verbose=False)
        return found["precision"], found["recall"]

    contenders = {"trilemma": lambda: precision_recall(**pair), "torch-fidelity": fidelity}
    found = compare(f"Precision and recall, {at(pair)}", contenders, rounds=3)
    assert found["torch-fidelity"] == pytest.approx(found["trilemma"], abs=1e-6)


def test_four_of_one_pass(compare: Compare, pair: dict[str, Array]) -> None:
    contenders = {
        "trilemma": lambda: all_four(**pair),
        "one pair after the other": lambda: (precision_recall(**pair), density_coverage(**pair)),
    }
    found = compare(f"Precision, recall, density, coverage, {at(pair)}", contenders, rounds=3)
    assert found["trilemma"] == found["one pair after the other"]


def random_images(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8)


def test_features_of_inception(compare: Compare, weights: Path) -> None:
    images = random_images(128, 0)
    extractor = InceptionExtractor(weights)
    theirs = create_feature_extractor(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
    )

    def fidelity() -> Array:
        found = get_featuresdict_from_dataset(Images(images), theirs, 64, False, True, False)
        return np.asarray(found["2048"].numpy())

    contenders = {"trilemma": lambda: extractor.extract(images, 256).values, "torch-fidelity": fidelity}
    found = compare("Inception features of 128 images of 64x64", contenders, rounds=3)
    np.testing.assert_allclose(found["trilemma"], found["torch-fidelity"], rtol=1e-4, atol=1e-5)


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
