"""How long the metrics take beside the libraries that people use; run by `tox -e perf`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from baselines.data import catalogue as data_catalogue
from bench.metrics import catalogue
from bench.metrics.base import Subject
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import of_samples, of_split
from bench.metrics.kernel import kernel_distance
from bench.metrics.manifold import precision_recall

Array = NDArray[np.float64]
Timer = Callable[..., Any]  # pytest-benchmark's fixture


@pytest.fixture(scope="module", params=[1000, 5000])
def pair(request: pytest.FixtureRequest) -> dict[str, Array]:
    """N real and N generated points in 2048 dimensions with a decaying spectrum, as Inception's features have."""
    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, 2049))
    return {name: rng.normal(size=(request.param, 2048)) * spectrum + 0.3 for name in ("real", "generated")}


def _group(benchmark: Timer, name: str, pair: dict[str, Array]) -> None:
    benchmark.group = f"{name}, N = {len(pair['real'])}, d = 2048"  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["ours", "torch-fidelity", "scipy sqrtm"])
def test_frechet_distance(who: str, pair: dict[str, Array], benchmark: Timer) -> None:
    def fidelity() -> float:
        stats = [fid_features_to_statistics(torch.from_numpy(pair[name])) for name in ("generated", "real")]
        return float(fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"])

    def sqrtm() -> float:
        mean, cov = [x.mean(0) for x in pair.values()], [np.cov(x, rowvar=False) for x in pair.values()]
        cross = np.trace(linalg.sqrtm(cov[0] @ cov[1]).real)
        return float(((mean[0] - mean[1]) ** 2).sum() + np.trace(cov[0]) + np.trace(cov[1]) - 2 * cross)

    def ours() -> float:
        return frechet_distance(**pair)

    _group(benchmark, "Fréchet distance", pair)
    found = benchmark.pedantic({"ours": ours, "torch-fidelity": fidelity, "scipy sqrtm": sqrtm}[who])  # type: ignore[attr-defined]
    assert found == pytest.approx(ours(), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["ours", "torch-fidelity"])
def test_kernel_distance(who: str, pair: dict[str, Array], benchmark: Timer) -> None:
    def fidelity() -> float:
        tensors = [torch.from_numpy(pair[name]) for name in ("generated", "real")]
        found = kid_features_to_metric(*tensors, kid_subsets=100, kid_subset_size=1000, verbose=False)
        return float(found["kernel_inception_distance_mean"])

    def ours() -> float:
        return kernel_distance(**pair).value

    _group(benchmark, "kernel distance", pair)
    found = benchmark.pedantic({"ours": ours, "torch-fidelity": fidelity}[who])  # type: ignore[attr-defined]
    assert found == pytest.approx(ours(), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["ours", "torch-fidelity"])
def test_precision_and_recall(who: str, pair: dict[str, Array], benchmark: Timer) -> None:
    def fidelity() -> tuple[float, float]:
        tensors = [torch.from_numpy(pair[name]) for name in ("generated", "real")]
        found = prc_features_to_metric(*tensors, verbose=False)
        return found["precision"], found["recall"]

    def ours() -> tuple[float, float]:
        return precision_recall(**pair)

    _group(benchmark, "precision and recall", pair)
    found = benchmark.pedantic({"ours": ours, "torch-fidelity": fidelity}[who])  # type: ignore[attr-defined]
    assert found == pytest.approx(ours(), abs=1e-6)


def test_all_feature_metrics_of_one_draw_on_digits(benchmark: Timer) -> None:
    data = data_catalogue.load("digits")
    extractor = ClassifierExtractor(SPECS["digits-cnn"])
    samples = data.development
    drawn = [metric for metric in catalogue.METRICS if metric.scope == "draw"]

    def measure() -> int:
        subject = Subject(
            0,
            generated=of_samples(samples, data),
            reference=of_split(data),
            train=of_split(data, "train"),
            extractor=extractor,
        )
        return sum(bool(metric.measure(subject)) for metric in drawn if metric.unavailable(subject) is None)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert measure() == len(drawn)
    benchmark.pedantic(measure, rounds=3)  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
