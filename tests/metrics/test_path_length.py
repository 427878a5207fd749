"""Path lengths: linear generators whose lengths are known, and the metric in a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import lognorm, norm
from torch import Tensor, nn

import bench
from baselines import registry, trainer
from baselines.config import build_config
from baselines.contract import GenerativeModel, HasLatent
from baselines.data import catalogue as data_catalogue
from baselines.data.likelihood import from_signed, to_signed
from baselines.noise import Noise
from baselines.types import Budget, Draw, ImageShape
from bench.families import family_keys
from bench.job import Setup
from bench.matrix import Wanted
from bench.metrics.base import Array, Subject
from bench.metrics.catalogue import METRICS
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.extractors import PixelExtractor
from bench.metrics.path_length import PathLength, Paths, lengths, path_length, slerp, trimmed_mean
from bench.metrics.perceptual import FeatureDistance
from bench.plan import plan
from bench.worker import run_job

DIGITS = ImageShape(1, 8, 8, 17)
CNN = ClassifierExtractor(SPECS["digits-cnn"])


class Squared:
    """Squared Euclidean distance of pixels."""

    name = "pixels"

    def identity(self) -> Mapping[str, Any]:
        return {"weights_sha256": "none"}

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).flatten(1).square().sum(1)


def drawn(n: int = 50, latent: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """z1, z2 (n, latent) and t (n,) in float64."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randn(2, n, latent, generator=generator, dtype=torch.float64)
    return ends[0], ends[1], torch.rand(n, generator=generator, dtype=torch.float64)


def matrix(latent: int = 6, size: float = 0.02) -> Tensor:
    """A (16, latent), small enough that A z stays in [-1, 1]."""
    return size * torch.randn(16, latent, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def linear(a: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: (z.to(a.dtype) @ a.T).view(-1, 1, 4, 4)


def smooth(z: Tensor) -> Tensor:
    return torch.tanh(z @ matrix(size=0.5).to(z.dtype).T).view(-1, 1, 4, 4)


def a_model(name: str = "dcgan", seed: int = 0) -> GenerativeModel:
    """Untrained but lively: batch norm has seen a batch."""
    model = registry.load(name).model
    built = trainer.build(model, DIGITS, build_config(model.config, {}, name), seed)
    if name == "dcgan":
        built.train()
        with torch.no_grad():
            built.get_submodule("generator")(torch.randn(256, 64, generator=torch.Generator().manual_seed(seed)))
    return built.eval()


# Interpolation


def test_slerp_is_the_textbooks_and_ends_where_it_should() -> None:
    first, second, places = drawn()
    a, b, t = first.numpy(), second.numpy(), places.numpy()[:, None]
    w = np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))[:, None]
    expected = np.sin((1 - t) * w) / np.sin(w) * a + np.sin(t * w) / np.sin(w) * b  # Shoemake 1985
    np.testing.assert_allclose(slerp(first, second, places).numpy(), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(slerp(first, second, torch.zeros_like(places)), first, rtol=0, atol=0)
    torch.testing.assert_close(slerp(first, second, torch.ones_like(places)), second, rtol=0, atol=0)


def test_of_unit_vectors_slerp_is_stylegans() -> None:
    first, second, places = drawn()
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (first, second))
    cosine = (a * b).sum(1, keepdim=True)
    c = b - cosine * a
    c = c / c.norm(dim=1, keepdim=True)
    p = places[:, None] * cosine.acos()
    torch.testing.assert_close(slerp(a, b, places), a * p.cos() + c * p.sin(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slerp(a, b, places).norm(dim=1), torch.ones_like(places), rtol=1e-12, atol=0)


def test_between_parallel_vectors_slerp_is_a_straight_line() -> None:
    first, _, places = drawn(latent=1)
    for factor in (2.0, -3.0, 1.0):
        expected = first + places[:, None] * (factor - 1) * first
        torch.testing.assert_close(slerp(first, factor * first, places), expected, rtol=1e-9, atol=1e-12)


# Lengths


def analytic(a: Tensor, first: Tensor, second: Tensor, places: Tensor) -> Array:
    """|A d/dt slerp|^2: the derivative is w / sin w (cos(t w) z2 - cos((1 - t) w) z1)."""
    cosine = nn.functional.cosine_similarity(first, second)
    w, t = cosine.acos()[:, None], places[:, None]
    speed = w / w.sin() * ((t * w).cos() * second - ((1 - t) * w).cos() * first)
    return (speed @ a.T).square().sum(1).numpy()


@pytest.mark.parametrize("places", ["full", "end"])
def test_a_linear_generator_has_the_length_of_its_derivative(places: str) -> None:
    first, second, t = drawn()
    t = t if places == "full" else torch.zeros_like(t)
    found = path_length(linear(matrix()), Squared().distance, first, second, t, 1e-6)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, analytic(matrix(), first, second, t), rtol=1e-5)


def test_the_mean_over_orthogonal_latents_of_equal_length_is_known() -> None:
    """w = pi/2 and |z| = r: every speed is r pi/2, so that with G = s z all lengths are (s r pi / 2)^2."""
    basis = 3 * torch.eye(8, dtype=torch.float64)
    found = path_length(
        linear(0.1 * torch.eye(16, 8).double()), Squared().distance, basis[:4], basis[4:], drawn(4)[2], 1e-6
    )
    np.testing.assert_allclose(found, (0.1 * 3 * math.pi / 2) ** 2, rtol=1e-6)


def test_lengths_grow_with_the_square_of_the_generator_and_a_constant_one_has_none() -> None:
    once, thrice = (path_length(linear(s * matrix()), Squared().distance, *drawn(), 1e-4) for s in (1, 3))
    np.testing.assert_allclose(thrice, 9 * once, rtol=1e-9)
    constant = path_length(lambda z: torch.full((len(z), 1, 4, 4), 0.3), Squared().distance, *drawn(), 1e-4)
    np.testing.assert_array_equal(constant, 0)


def test_lengths_of_a_smooth_generator_do_not_depend_on_the_step() -> None:
    small, large = (path_length(smooth, Squared().distance, *drawn(), eps) for eps in (1e-6, 1e-3))
    assert small.std() > 0.3 * small.mean(), "the premise: lengths differ"
    np.testing.assert_allclose(large, small, rtol=0.02)
    assert large.mean() == pytest.approx(small.mean(), rel=1e-3)


def test_rounding_to_levels_destroys_path_lengths() -> None:
    """Most steps change no level, and one that does is counted as if the whole level lay within the step."""

    def rounded(first: Tensor, second: Tensor) -> Tensor:
        return Squared().distance(*(to_signed(from_signed(x, 256), 256).double() for x in (first, second)))

    exact, spoilt = (path_length(smooth, d, *drawn(400), 1e-4) for d in (Squared().distance, rounded))
    assert (exact > 0).all()
    assert (spoilt == 0).mean() > 0.5
    assert spoilt.mean() > 10 * exact.mean()


@pytest.mark.parametrize("name", ["dcgan", "vae", "realnvp"])
def test_float32_networks_on_float64_latents_give_the_mean_to_a_thousandth(name: str) -> None:
    """Or to 0.002: what rounding adds matters where images hardly move, as an untrained VAE's."""
    model = a_model(name)
    assert isinstance(model, HasLatent)
    latent, paths, noise = model.latent, Paths(300), Noise(1, dtype=torch.float64)
    assert isinstance(latent, int)
    single = lengths(lambda z: model.decode(z.float()), latent, FeatureDistance(CNN), paths, noise)
    model.double()
    double = ClassifierExtractor(SPECS["digits-cnn"])
    double.net.double()
    exact = lengths(model.decode, latent, FeatureDistance(double), paths, noise)
    assert exact.mean() > 0
    assert single.mean() == pytest.approx(exact.mean(), rel=1e-3, abs=2e-3)


def test_a_pair_does_not_depend_on_the_batch() -> None:
    noise = Noise(5, dtype=torch.float64)
    told: list[tuple[str, int, int]] = []
    whole = lengths(smooth, 6, Squared(), Paths(70, batch=70), noise)
    parts = lengths(smooth, 6, Squared(), Paths(70, batch=32), noise, lambda *seen: told.append(seen))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
    assert told == [("path length", done, 70) for done in (0, 32, 64, 70)]
    end = lengths(smooth, 6, Squared(), Paths(70, sampling="end"), noise)
    assert not np.allclose(end, whole, rtol=0.01)


# Their mean


def test_the_mean_leaves_out_what_stylegans_code_does(rng: np.random.Generator) -> None:
    for n in (2, 99, 250, 10_000):
        values = rng.lognormal(sigma=2, size=n)
        ordered = np.sort(values)
        low, high = ordered[math.floor(0.01 * (n - 1))], ordered[math.ceil(0.99 * (n - 1))]
        expected = np.mean([v for v in values if low <= v <= high])
        assert trimmed_mean(values).value == pytest.approx(expected, rel=1e-12)
    alike = trimmed_mean(np.full(500, 3.0))
    assert (alike.value, alike.low, alike.high) == (3, 3, 3)


@pytest.mark.parametrize("n", [300, 2000])
def test_the_interval_holds_the_trimmed_mean_of_a_skewed_population(n: int, rng: np.random.Generator) -> None:
    sigma = 1.3
    low, high = lognorm(sigma).ppf([0.01, 0.99])
    # E[X | low < X < high] of a lognormal, in closed form
    inside = norm.cdf(math.log(high) / sigma - sigma) - norm.cdf(math.log(low) / sigma - sigma)
    truth = math.exp(sigma**2 / 2) * inside / 0.98
    trials = [trimmed_mean(rng.lognormal(sigma=sigma, size=n)) for _ in range(600)]
    held = np.mean([found.low <= truth <= found.high for found in trials])  # type: ignore[operator]
    assert held > 0.92


# In a run


def subject(model: GenerativeModel | None = None, **parts: Any) -> Subject:
    return Subject(3, model=model or a_model(), extractor=parts.pop("extractor", CNN), **parts)


def test_the_number_bears_the_extractors_name_and_its_protocol_says_how_it_was_made() -> None:
    metric = PathLength(pairs=120)
    assert metric.unavailable(subject()) is None
    (found,) = metric.measure(subject(protocol={"subject": "averaged"}))
    assert (found.metric, found.better, found.n, found.scope) == ("ppl[digits-cnn]", "lower", 120, "train")
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high
    told = found.protocol
    assert (told["pairs"], told["epsilon"], told["version"], told["subject"]) == (120, 1e-4, 1, "averaged")
    assert told["distance"]["weights_sha256"] == CNN.identity()["weights_sha256"]
    assert (found,) == metric.measure(subject(protocol={"subject": "averaged"})), "the seed decides"
    (other,) = metric.measure(Subject(4, model=a_model(), extractor=CNN))
    assert other.value != found.value


def test_a_run_and_python_agree() -> None:
    model = a_model()
    assert isinstance(model, HasLatent)
    (found,) = PathLength(pairs=100).measure(subject(model))
    again = bench.path_length(model.decode, model.latent, extractor="digits-cnn", pairs=100, seed=3)
    assert (again.metric, again.n) == (found.metric, 100)
    assert again.value == pytest.approx(found.value, rel=1e-3)
    assert dict(again.protocol) == dict(found.protocol)


def test_why_there_is_none_is_told() -> None:
    metric = PathLength()
    assert "no latent space" in str(metric.unavailable(Subject(0)))
    assert "no latent space" in str(metric.unavailable(subject(a_model("histogram"))))
    assert "no latent space" in str(metric.unavailable(subject(a_model("ddpm"), extractor=None)))
    assert metric.unavailable(subject(extractor=None, extractor_reason="none here")) == "none here"
    assert "not rounded, which the extractor pixels8x8 does not" in str(
        metric.unavailable(subject(extractor=PixelExtractor()))
    )


def test_a_models_latent_space_decides_what_makes_its_record_stale() -> None:
    digits = data_catalogue.load("digits", None)
    setups = [Setup(Path(), "cpu"), Setup(Path(), "cpu", extractor="pixels8x8")]
    with_latent = [family_keys(digits, setup, latent=True)["train"] for setup in setups]
    without = [family_keys(digits, setup, latent=False)["train"] for setup in setups]
    assert with_latent[0]["ppl"] != with_latent[1]["ppl"]
    assert without[0] == without[1], "likelihoods of models without one are not taken again for another extractor"
    assert with_latent[0]["bits_per_dim"] == with_latent[1]["bits_per_dim"]


def test_a_training_record_holds_it_once_for_all_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next(m for m in METRICS if isinstance(m, PathLength)), "pairs", 200)
    seen: list[tuple[str, int, int]] = []
    found = {}
    for name in ("dcgan", "histogram"):
        wanted = Wanted(name, "digits", 0, Budget(images=64), {}, (Draw(),), (None,))
        (training,) = plan([wanted], Setup(tmp_path, "cpu"))
        found[name] = run_job((training.job, None), seen.append)
    values = {m.metric: m.value for m in found["dcgan"].measured}
    assert values["ppl[digits-cnn]"] > 0
    assert ("path length", 200, 200) in seen
    assert "no latent space" in found["histogram"].skipped["ppl"]
