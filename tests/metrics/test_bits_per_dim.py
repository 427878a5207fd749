"""Bits per dimension and the gap to a known truth, with models whose likelihood is known by formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from baselines.contract import Draw, GenerativeModel, Given, HasLikelihood, Nats, Noise
from baselines.data import catalogue, likelihood
from baselines.data.dataset import Dataset
from baselines.errors import DivergedError
from baselines.types import ImageShape, Kind
from bench.metrics.base import Subject
from bench.metrics.likelihood import BitsPerDim


class Silent(GenerativeModel):
    """Draws black images and knows no likelihood."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        return torch.zeros(n, *self.shape.chw, dtype=torch.uint8)


class Formula(Silent, HasLikelihood):
    """Has the likelihood it is given, as a bound in two terms."""

    likelihoods: ClassVar[Mapping[str, Kind]] = {"vlb": "upper_bound", "nll": "exact"}

    def __init__(self, shape: ImageShape, nats: Callable[[Tensor], Tensor]) -> None:
        super().__init__(shape)
        self.formula = nats

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        total = self.formula(x)
        return Nats(total, {"L_T": total / 4, "L_0": 3 * total / 4} if name == "vlb" else {})


@pytest.fixture(scope="module")
def mesh() -> Dataset:
    return catalogue.load("markov-mesh")


def uniform(x: Tensor) -> Tensor:
    return torch.full((len(x),), x[0].numel() * math.log(2))


def test_a_uniform_model_of_two_levels_costs_one_bit_a_pixel(mesh: Dataset) -> None:
    subject = Subject(0, mesh, model=Formula(mesh.shape, uniform))
    found = {m.metric: m for m in BitsPerDim().measure(subject)}
    exact = found["bits_per_dim[nll]"]
    assert (exact.value, exact.low, exact.high) == pytest.approx((1, 1, 1))
    assert (exact.kind, exact.unit, exact.n, exact.scope) == ("exact", "bits/dim", len(mesh.test), "train")
    assert found["bits_per_dim[vlb]"].kind == "upper_bound"
    assert f"{64 * math.log(2):.2f} nats" in exact.note


def test_part_of_the_test_split_is_told_as_such(mesh: Dataset) -> None:
    """The models' numbers are of the same images, by sum of pixels here, and `compare` must see how many."""
    seen: list[Tensor] = []

    def ink(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1).sum(1).float()

    subject = Subject(0, mesh, model=Formula(mesh.shape, ink), likelihood_images=50)
    found = BitsPerDim().measure(subject)
    assert {(m.n, m.protocol["n_real"]) for m in found} == {(50, 50)}
    assert torch.equal(seen[0], mesh.test.images[likelihood.subset(len(mesh.test), 50)])


def test_terms_add_up_and_are_not_ranked(mesh: Dataset) -> None:
    assert mesh.truth is not None
    subject = Subject(0, mesh, model=Formula(mesh.shape, mesh.truth))
    found = {m.metric: m for m in BitsPerDim().measure(subject)}
    terms = [found[f"bits_per_dim[vlb:{name}]"] for name in ("L_T", "L_0")]
    assert sum(m.value for m in terms) == pytest.approx(found["bits_per_dim[vlb]"].value)
    assert {(m.better, m.kind) for m in terms} == {("none", None)}


def test_the_truth_has_no_gap_and_the_uniform_model_its_divergence(mesh: Dataset) -> None:
    assert mesh.truth is not None
    gaps = {}
    for name, formula in (("truth", mesh.truth), ("uniform", uniform)):
        found = {m.metric: m for m in BitsPerDim().measure(Subject(0, mesh, model=Formula(mesh.shape, formula)))}
        gaps[name] = found["kl_gap[nll]"]
    assert (gaps["truth"].value, gaps["truth"].low, gaps["truth"].high) == pytest.approx((0, 0, 0), abs=1e-12)
    entropy = float(mesh.truth(mesh.test.images).mean()) / (64 * math.log(2))
    assert gaps["uniform"].value == pytest.approx(1 - entropy)
    assert gaps["uniform"].low is not None
    assert 0 < gaps["uniform"].low < gaps["uniform"].value


def test_the_interval_is_over_images(mesh: Dataset) -> None:
    assert mesh.truth is not None
    subject = Subject(0, mesh, model=Formula(mesh.shape, mesh.truth))
    (found,) = (m for m in BitsPerDim().measure(subject) if m.metric == "bits_per_dim[nll]")
    bits = mesh.truth(mesh.test.images) / (64 * math.log(2))
    assert found.high is not None
    assert found.high - found.value == pytest.approx(1.959964 * float(bits.std()) / math.sqrt(len(bits)))


def test_curves_are_kept_with_their_intervals_and_errors_of_an_estimate_are_numbers(mesh: Dataset) -> None:
    class Estimated(Formula):
        likelihoods: ClassVar[Mapping[str, Kind]] = {"ode": "estimate"}

        def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
            total = x.flatten(1).float().mean(1) + 1
            return Nats(
                total,
                curves={"L_t": torch.stack([total, 3 * total, 0 * total], 1)},
                standard_errors={"trace": total / 2},
                changes={"half the steps": total / 8},
            )

    subject = Subject(0, mesh, model=Estimated(mesh.shape, uniform))
    found = {m.metric: m for m in BitsPerDim().measure(subject)}
    bits = (mesh.test.images.flatten(1).double().mean(1) + 1) / (64 * math.log(2))
    curve = subject.likelihood_curves["ode"]["L_t"]
    assert curve["mean"] == pytest.approx([float(bits.mean()), 3 * float(bits.mean()), 0])
    half = 1.959964 * float(bits.std()) / math.sqrt(len(bits))
    assert [high - mean for high, mean in zip(curve["high"], curve["mean"], strict=True)] == pytest.approx(
        [half, 3 * half, 0]
    )
    assert [mean - low for low, mean in zip(curve["low"], curve["mean"], strict=True)] == pytest.approx(
        [half, 3 * half, 0]
    )
    error, change = found["bits_per_dim[ode:trace_error]"], found["bits_per_dim[ode:half the steps]"]
    assert error.value == pytest.approx(float((bits / 2).square().sum().sqrt()) / len(bits))
    assert (error.better, error.low, change.value) == ("none", None, pytest.approx(float(bits.mean()) / 8))


def test_data_without_a_truth_have_no_gap(mesh: Dataset) -> None:
    found = BitsPerDim().measure(Subject(0, replace(mesh, truth=None), model=Formula(mesh.shape, uniform)))
    assert not [m for m in found if m.metric.startswith("kl_gap")]


def test_a_model_without_likelihood_gives_the_reason(mesh: Dataset) -> None:
    assert "no likelihood" in str(BitsPerDim().unavailable(Subject(0, mesh, model=Silent(mesh.shape))))
    assert "samples alone" in str(BitsPerDim().unavailable(Subject(0, mesh)))
    assert BitsPerDim().unavailable(Subject(0, mesh, model=Formula(mesh.shape, uniform))) is None


def test_one_infinite_image_fails_the_cell(mesh: Dataset) -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x)) == 3, torch.inf, uniform(x))

    with pytest.raises(DivergedError, match="NaN or infinite"):
        BitsPerDim().measure(Subject(0, mesh, model=Formula(mesh.shape, broken)))
