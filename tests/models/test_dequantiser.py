"""Dequantisation by a learned q(u | x): normalised, uniform before training, its bound a bound, and told in records."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import registry
from baselines.config import build_config
from baselines.contract import Batch, Context, Dequantises, Draw, GenerativeModel, Given, Noise
from baselines.data.dataset import Dataset, Split
from baselines.data.likelihood import dequantisation, dequantise, image_nats, kinds, split_nats
from baselines.errors import UserError
from baselines.flows.logit_flow import LogitFlow
from baselines.nets.dequantiser import DequantiserConfig, VariationalDequantiser, make_dequantiser
from baselines.types import ImageShape
from bench.metrics.base import Subject
from bench.metrics.likelihood import BitsPerDim
from tests.models import oracles_likelihood as oracles

TWO = oracles.TWO_PIXELS
DOUBLE = Noise(3, dtype=torch.float64)
WIDTHS = {"glow": 6, "iaf": 20, "maf": 20, "realnvp": 6}
MODELS = tuple(WIDTHS)


def flow(name: str, shape: ImageShape, how: str, perturb: float = 0.2) -> LogitFlow:
    values = {"width": WIDTHS[name], "dequantisation": how, "dequantiser.width": 4}
    model = oracles.built(name, shape, values, perturb)
    assert isinstance(model, LogitFlow)
    return model


def some_q(shape: ImageShape, perturb: float = 0.3) -> VariationalDequantiser:
    torch.manual_seed(0)
    q = VariationalDequantiser(shape, DequantiserConfig(width=4)).double()
    with torch.no_grad():
        for parameter in q.parameters():
            parameter.add_(perturb * torch.randn_like(parameter))
    return q


def images(shape: ImageShape, n: int, seed: int = 2) -> Tensor:
    return torch.randint(0, shape.levels, (n, *shape.chw), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )


# q itself


def test_q_of_two_pixels_integrates_to_one_for_every_image() -> None:
    q = some_q(TWO)
    points, weights = np.polynomial.legendre.leggauss(160)
    e, w = torch.tensor(28 * points), torch.tensor(28 * weights)  # u = sigmoid(e), where the tails are mild
    u = torch.sigmoid(e)
    grid = torch.cartesian_prod(u, u).view(-1, 1, 1, 2)
    mass = torch.outer(w * u * (1 - u), w * u * (1 - u)).flatten()
    for x in oracles.all_images(TWO):
        density = q.log_prob(grid, x.expand(len(grid), -1, -1, -1)).exp().detach()
        assert float((density * mass).sum()) == pytest.approx(1, abs=1e-3)
    assert float(density.max() / density.min()) > 2, "premise: far from uniform"


@pytest.mark.parametrize("shape", [ImageShape(3, 2, 3, 5), ImageShape(1, 5, 4, 256)], ids=str)
def test_the_density_of_a_draw_is_that_of_the_map_by_autograd(shape: ImageShape) -> None:
    q, x, uniform = some_q(shape), images(shape, 3), DOUBLE.uniform("u", 3, shape.chw)
    u, log_q = (found.detach() for found in q(x, uniform))
    assert 0 < float(u.min()) < float(u.max()) < 1
    assert float(log_q.abs().min()) > 1e-2, "premise: not uniform"
    for image, v, found in zip(x, uniform, log_q, strict=True):
        jacobian = torch.func.jacrev(lambda t, image=image: q(image[None], t[None])[0].flatten())(v)
        log_det = torch.linalg.slogdet(jacobian.reshape(shape.dims, shape.dims)).logabsdet
        torch.testing.assert_close(found, -log_det)
    torch.testing.assert_close(q.log_prob(u, x), log_q)


def test_before_training_q_is_uniform_whatever_the_image() -> None:
    q = VariationalDequantiser(TWO, DequantiserConfig()).double()
    uniform = DOUBLE.uniform("u", 50, TWO.chw)
    u, log_q = q(images(TWO, 50), uniform)
    torch.testing.assert_close(u, uniform)
    torch.testing.assert_close(log_q, torch.zeros(50, dtype=torch.float64))


def test_uniform_numbers_of_exactly_zero_give_finite_draws() -> None:
    q = VariationalDequantiser(TWO, DequantiserConfig())
    u, log_q = q(images(TWO, 2), torch.zeros(2, *TWO.chw))
    assert bool(torch.isfinite(u).all() and torch.isfinite(log_q).all())


def test_bad_sizes_are_told_and_the_config_chooses() -> None:
    assert make_dequantiser("uniform", TWO, DequantiserConfig()).name == "uniform"
    assert make_dequantiser("variational", TWO, DequantiserConfig()).name == "variational"
    for wrong in ({"width": 0}, {"couplings": -1}):
        with pytest.raises(UserError, match="dequantiser: expected"):
            build_config(DequantiserConfig, wrong, "dequantiser")


# The bound


class Exact(GenerativeModel, Dequantises):
    """p(y) = prod 2 y, and for q its own posterior p(u | x): the bound then is log P(x) with every draw."""

    dequantisation = "variational"

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape

    def log_density(self, y: Tensor) -> Tensor:
        return (2 * y).log().flatten(1).sum(1)

    def dequantise(self, x: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        low = x.double()
        u = (low.square() + uniform * (2 * low + 1)).sqrt() - low  # q(u | x) = (x + u) / (x + 1/2)
        return u, ((low + u) / (low + 0.5)).log().flatten(1).sum(1)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("name", ["dequantised", "dequantised_k16"])
def test_with_the_models_posterior_for_q_the_bound_is_exact(name: str) -> None:
    model = Exact(ImageShape(1, 4, 4, 17))
    x = images(model.shape, 50)
    truth = -((2 * x.double() + 1) / 17**2).log().flatten(1).sum(1)
    torch.testing.assert_close(image_nats(model, x, name, DOUBLE).total, truth, rtol=0, atol=1e-3)  # u off the ends


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("likelihood", ["dequantised", "dequantised_k16"])
def test_a_variational_bound_whose_q_is_uniform_is_the_uniform_bound(name: str, likelihood: str) -> None:
    uniform, learned = flow(name, TWO, "uniform"), flow(name, TWO, "variational", perturb=0)
    learned.flow.load_state_dict(uniform.flow.state_dict())
    x = images(TWO, 100)
    expected = image_nats(uniform, x, likelihood, DOUBLE).total
    torch.testing.assert_close(image_nats(learned, x, likelihood, DOUBLE).total, expected)


def fitted_q(name: str, steps: int = 150) -> tuple[LogitFlow, Tensor]:
    """A flow whose weights are fixed, with a q that was trained to it, and the exact P of every image."""
    model = flow(name, TWO, "variational")
    p = oracles.bin_masses(model, model.config.alpha)
    optimiser = torch.optim.Adam(model.dequantiser.parameters(), 0.02)
    generator = torch.Generator().manual_seed(0)
    x = oracles.all_images(TWO).repeat(8, 1, 1, 1)
    for _ in range(steps):
        u, log_q = model.dequantise(x, torch.rand(x.shape, generator=generator, dtype=torch.float64))
        loss = (log_q - model.log_density(dequantise(x, TWO.levels, u))).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model, p


@pytest.mark.parametrize("name", ["glow", "realnvp"])
def test_the_variational_bound_lies_above_the_exact_value_below_the_uniform_one_and_tightens_with_k(name: str) -> None:
    model, p = fitted_q(name)
    uniform = flow(name, TWO, "uniform")
    uniform.flow.load_state_dict(model.flow.state_dict())
    assert float(p.sum()) == pytest.approx(1, abs=1e-4), "premise: the quadrature finds all of the mass"
    x = oracles.all_images(TWO).repeat(100, 1, 1, 1)
    exact = float(-p.log().mean())
    bounds = {
        (how, k): float(split_nats(m, x, k, DOUBLE).total.mean())
        for how, m in (("uniform", uniform), ("variational", model))
        for k in ("dequantised", "dequantised_k16")
    }
    one, sixteen = bounds["variational", "dequantised"], bounds["variational", "dequantised_k16"]
    assert exact < sixteen < one < bounds["uniform", "dequantised"]
    assert one - exact < 0.5 * (bounds["uniform", "dequantised"] - exact), "the learned q closes most of the gap"
    assert sixteen < bounds["uniform", "dequantised_k16"]
    assert sixteen - exact < 0.7 * (one - exact)


@pytest.mark.parametrize("name", MODELS)
def test_flow_and_q_learn_together(name: str) -> None:
    model = registry.load(name).model
    built = model.build(TWO, build_config(model.config, {"dequantisation": "variational", "dropout": 0.0}, name))
    assert isinstance(built, LogitFlow)
    phase = built.phases()[0]
    x, generator = images(TWO, 32), torch.Generator().manual_seed(0)
    phase.loss(Batch(x), Context(0, 0.0, generator, torch.device("cpu"))).total.backward()  # type: ignore
    assert built.get_submodule("flow").get_parameter("flows.0.mean").grad is not None
    last = [p for p_name, p in built.dequantiser.named_parameters() if p_name.endswith("last.bias")]
    assert last
    assert all(p.grad is not None and bool(p.grad.any()) for p in last)
    assert set(phase.modules) == {"flow", "dequantiser"} == set(built.averaged)


# Records


def test_names_and_kinds_are_those_of_every_density_and_the_record_says_which_dequantisation() -> None:
    for how in ("uniform", "variational"):
        model = flow("glow", TWO, how)
        assert kinds(model) == {"dequantised": "upper_bound", "dequantised_k16": "upper_bound"}
        x = images(TWO, 20)
        dataset = Dataset("toy", TWO, Split(x), Split(x), Split(x), "here", "none")
        found = BitsPerDim().measure(Subject(0, model=model.float(), dataset=dataset))
        assert [m.metric for m in found] == ["bits_per_dim[dequantised]", "bits_per_dim[dequantised_k16]"]
        for m in found:
            assert m.protocol["dequantisation"] == how == dequantisation(model, "dequantised")
            assert f"{how} dequantisation" in m.note
    pixelcnn = oracles.built("pixelcnn", TWO)
    assert dequantisation(pixelcnn, "exact") is None
    dataset = Dataset("toy", TWO, Split(x), Split(x), Split(x), "here", "none")
    (exact,) = BitsPerDim().measure(Subject(0, model=pixelcnn.float(), dataset=dataset))
    assert "dequantisation" not in exact.protocol
    assert math.isfinite(exact.value)
