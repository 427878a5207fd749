"""Likelihood preprocessing against scipy, autograd and closed forms, and the traps of scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from baselines.contract import Draw, GenerativeModel, Given, HasDensity, HasLikelihood, Nats, Noise
from baselines.data import likelihood
from baselines.errors import DivergedError, UserError
from baselines.types import ImageShape

Discretised = Callable[[Tensor, Tensor, Tensor, int], Tensor]
FAMILIES = [
    pytest.param(likelihood.discretised_logistic, scipy.stats.logistic, id="logistic"),
    pytest.param(likelihood.discretised_gaussian, scipy.stats.norm, id="gaussian"),
]
LEVELS = [2, 17, 256]


def scipy_log_p(law: ModuleType, mean: float, log_scale: float, levels: int) -> np.ndarray:
    """The same probabilities from scipy's float64 CDF or survival function, whichever is small; -inf below 1e-300."""
    edges = (2 * np.arange(levels + 1) - 1) / (levels - 1) - 1
    edges[0], edges[-1] = -np.inf, np.inf
    z = (edges - mean) / math.exp(log_scale)
    left = np.diff(law.cdf(z))
    right = -np.diff(law.sf(z))
    with np.errstate(divide="ignore"):
        return np.log(np.where(z[1:] + z[:-1] < 0, left, right))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("log_p", "law"), FAMILIES)
def test_levels_sum_to_one_in_float32_down_to_log_scale_minus_7(
    log_p: Discretised, law: ModuleType, levels: int
) -> None:
    x = torch.arange(levels).view(-1, 1, 1)
    mean = torch.linspace(-3, 3, 61).view(1, -1, 1)  # far outside [-1, 1] as well
    log_scale = torch.linspace(-7, 2, 46).view(1, 1, -1)
    total = log_p(x, mean, log_scale, levels).double().exp().sum(0)
    assert mean.dtype == torch.float32
    assert (total - 1).abs().max() < 1e-4


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("log_p", "law"), FAMILIES)
def test_each_level_agrees_with_scipy(log_p: Discretised, law: ModuleType, levels: int) -> None:
    compared = 0
    for mean in (-1.4, -1.0, -0.31, 0.0, 0.5, 1.0, 2.2):
        for log_scale in (-7.0, -5.0, -2.5, -1.0, 0.7):
            expected = scipy_log_p(law, mean, log_scale, levels)
            sound = expected > math.log(1e-290)  # below, scipy's difference has lost its digits
            parameters = (torch.tensor(v, dtype=torch.float64) for v in (mean, log_scale))
            ours = log_p(torch.arange(levels), *parameters, levels).numpy()
            np.testing.assert_allclose(ours[sound], expected[sound], rtol=1e-9, atol=1e-9)
            assert np.all(ours[~sound] < math.log(1e-289))
            compared += int(sound.sum())
    assert compared >= 35


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("log_p", "law"), FAMILIES)
def test_gradients_are_finite_everywhere(log_p: Discretised, law: ModuleType, levels: int) -> None:
    x = torch.arange(levels).view(-1, 1, 1)
    mean = torch.linspace(-3, 3, 13).view(1, -1, 1).requires_grad_()
    log_scale = torch.linspace(-7, 2, 10).view(1, 1, -1).requires_grad_()
    log_p(x, mean, log_scale, levels).sum().backward()
    assert mean.grad is not None
    assert log_scale.grad is not None
    assert bool(torch.isfinite(mean.grad).all() and torch.isfinite(log_scale.grad).all())


def some_mixtures(k: int, n: int, dtype: torch.dtype, log_scale: tuple[float, float] = (-7, 2)) -> list[Tensor]:
    """log_weights, mean and log_scale (n, K, 3) of random mixtures; means leave [-1, 1]."""
    generator = torch.Generator().manual_seed(k)
    weights, mean = (torch.randn(n, k, 3, generator=generator, dtype=dtype) for _ in range(2))
    low, high = log_scale
    return [3 * weights, 1.5 * mean, low + (high - low) * torch.rand(n, k, 3, generator=generator, dtype=dtype)]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_a_mixtures_levels_sum_to_one_in_float32_down_to_log_scale_minus_7(k: int, levels: int) -> None:
    for narrowest in ((-7.0, 2.0), (-7.0, -6.9)):
        log_p = likelihood.logistic_mixture_levels(*some_mixtures(k, 500, torch.float32, narrowest), levels)
        assert (log_p.shape, log_p.dtype) == ((500, levels, 3), torch.float32)
        assert (log_p.double().exp().sum(1) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("levels", LEVELS)
def test_a_mixture_of_one_is_the_discretised_logistic_whatever_its_weight(levels: int) -> None:
    log_weights, mean, log_scale = some_mixtures(1, 200, torch.float64)
    x = torch.randint(levels, (200, 3), generator=torch.Generator().manual_seed(0))
    alone = likelihood.discretised_logistic(x, mean[:, 0], log_scale[:, 0], levels)
    torch.testing.assert_close(likelihood.logistic_mixture(x, log_weights, mean, log_scale, levels), alone)


@pytest.mark.parametrize("levels", LEVELS)
def test_a_mixture_is_scipys_logistics_weighted_by_the_softmax(levels: int) -> None:
    log_weights, mean, log_scale = some_mixtures(4, 5, torch.float64, (-3, 1))
    found = likelihood.logistic_mixture_levels(log_weights, mean, log_scale, levels).exp().numpy()
    weights = np.exp(log_weights.numpy()) / np.exp(log_weights.numpy()).sum(1, keepdims=True)
    for i, j in np.ndindex(5, 3):
        of = [(float(mean[i, m, j]), float(log_scale[i, m, j])) for m in range(4)]
        laws = [scipy_log_p(scipy.stats.logistic, *parameters, levels) for parameters in of]
        expected = sum(weights[i, m, j] * np.exp(law) for m, law in enumerate(laws))
        np.testing.assert_allclose(found[i, :, j], expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("levels", LEVELS)
def test_a_mixture_of_the_levels_that_are_there_is_that_of_every_level_picked(levels: int) -> None:
    mixtures = some_mixtures(3, 100, torch.float64)
    x = torch.randint(levels, (100, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    every = likelihood.logistic_mixture_levels(*mixtures, levels)
    torch.testing.assert_close(
        likelihood.logistic_mixture(x, *mixtures, levels), every.gather(1, x.long()[:, None])[:, 0]
    )


def test_the_gradient_of_a_mixture_is_finite_at_the_narrowest_scale_and_far_off() -> None:
    parameters = [p.requires_grad_() for p in some_mixtures(3, 50, torch.float32, (-7, -6))]
    x = torch.randint(256, (50, 3), generator=torch.Generator().manual_seed(0))
    likelihood.logistic_mixture(x, *parameters, 256).sum().backward()
    for parameter in parameters:
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad).all())
        assert float(parameter.grad.abs().max()) > 0


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 0.05])
def test_logit_inverts_and_its_log_det_is_autograds(alpha: float) -> None:
    y = torch.rand(4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, log_det = likelihood.logit(y, alpha)
    torch.testing.assert_close(likelihood.unlogit(z, alpha), y)
    for image, found in zip(y, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: likelihood.logit(v[None], alpha)[0][0], image)
        torch.testing.assert_close(found, torch.linalg.slogdet(jacobian.reshape(6, 6)).logabsdet)


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_logit_of_the_whole_closed_interval_is_finite_in_float32(alpha: float) -> None:
    z, log_det = likelihood.logit(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1), alpha)
    assert bool(torch.isfinite(z).all() and torch.isfinite(log_det).all())


def test_signed_pixels_survive_the_round_trip_and_reach_both_ends() -> None:
    for levels in range(2, 257):
        x = torch.arange(levels).to(torch.uint8)
        y = likelihood.to_signed(x, levels)
        assert (float(y[0]), float(y[-1])) == (-1.0, pytest.approx(1.0, abs=1e-6))
        assert torch.equal(likelihood.from_signed(y, levels), x)
    assert likelihood.from_signed(torch.tensor([-9.0, 9.0]), 17).tolist() == [0, 16]


@pytest.mark.parametrize("u", [0.0, 1e-8, 2**-20, 0.5, 1 - 2**-20, 1 - 2**-24])
def test_quantise_inverts_dequantise_for_all_levels_and_draws_in_float32(u: float) -> None:
    for levels in range(2, 257):
        x = torch.arange(levels).to(torch.uint8)
        y = likelihood.dequantise(x, levels, torch.full((levels,), u))
        assert y.dtype == torch.float32
        assert torch.equal(likelihood.quantise(y, levels), x), f"{levels} levels"


def test_dequantised_pixels_lie_inside_the_open_unit_interval() -> None:
    """As `HasDensity.log_density` promises to its models: a logit of 0 or 1 would be infinite."""
    x = torch.tensor([0, 255], dtype=torch.uint8)
    y = likelihood.dequantise(x, 256, torch.tensor([0.0, 1 - 2**-24]))
    assert 0 < float(y[0]) < float(y[1]) < 1


class Density(GenerativeModel, HasDensity):
    """A model of the given density that cannot sample."""

    def __init__(self, shape: ImageShape, log_density: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shape, self.found = shape, log_density

    def log_density(self, y: Tensor) -> Tensor:
        return self.found(y)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        raise NotImplementedError


def rising(y: Tensor) -> Tensor:
    """log of the product of 2y, whose discrete probabilities and expected bound are known."""
    return (2 * y).log().flatten(1).sum(1)


def logistic_through_logit(y: Tensor) -> Tensor:
    """The uniform density, as a flow states it: logit, standard logistic density, Jacobian."""
    z, log_det = likelihood.logit(y, 0.0)
    return log_det - (z + 2 * torch.nn.functional.softplus(-z)).flatten(1).sum(1)


def some_images(shape: ImageShape, n: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(shape.levels, (n, *shape.chw), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("name", ["dequantised", "dequantised_k16"])
@pytest.mark.parametrize("levels", LEVELS)
def test_the_uniform_density_costs_exactly_log2_levels_bits_per_dim(levels: int, name: str) -> None:
    shape = ImageShape(3, 4, 4, levels)
    for density in (lambda y: torch.zeros(len(y)), logistic_through_logit):
        nats = likelihood.image_nats(Density(shape, density), some_images(shape), name, Noise(0)).total
        bits = likelihood.bits_per_dim(nats, shape)
        torch.testing.assert_close(bits, torch.full((64,), math.log2(levels)), rtol=1e-5, atol=0)


def test_the_traps_of_scale_give_other_numbers_than_the_closed_form() -> None:
    """No +log levels, no Jacobian, nats called bits: each misses the uniform's log2(levels) widely."""
    shape = ImageShape(1, 8, 8, 17)
    x, right = some_images(shape), math.log2(17)
    y = likelihood.dequantise(x, 17, Noise(0).uniform("dequantise", len(x), shape.chw))
    z, log_det = likelihood.logit(y, 0.0)
    density = -(z + 2 * torch.nn.functional.softplus(-z)).flatten(1).sum(1) + log_det
    no_levels = likelihood.bits_per_dim(-density.mean(), shape)
    no_jacobian = likelihood.bits_per_dim(shape.dims * math.log(17) - (density - log_det).mean(), shape)
    nats_as_bits = (shape.dims * math.log(17) - density.mean()) / shape.dims
    assert abs(no_levels - (right - math.log2(17))) < 0.01
    assert abs(no_jacobian - (right + 2 / math.log(2))) < 0.1  # E[log|dz/dy|] = 2 nats for uniform y
    assert abs(nats_as_bits - right * math.log(2)) < 0.01


@pytest.mark.parametrize("levels", LEVELS)
def test_the_dequantised_bound_is_the_closed_form_mean_and_lies_above_the_truth(levels: int) -> None:
    """Under p(y) = 2y, P(x) = ((x+1)^2 - x^2) / L^2, and E_u[log 2y] is an integral of log."""
    shape = ImageShape(1, 4, 4, levels)
    x = some_images(shape, 4_000)
    model = Density(shape, rising)
    bound = likelihood.split_nats(model, x, "dequantised", Noise(0)).total.double()
    tighter = likelihood.split_nats(model, x, "dequantised_k16", Noise(0)).total.double()
    v = x.double()
    truth = -((2 * v + 1) / levels**2).log().flatten(1).sum(1)
    integral = (v + 1) * (v + 1).log() - torch.xlogy(v, v) - 1  # of log t from x to x + 1
    expected = -(integral + math.log(2 / levels) - math.log(levels)).flatten(1).sum(1)
    error = (bound - expected).std() / math.sqrt(len(x))
    assert abs(bound.mean() - expected.mean()) < 4 * error
    assert truth.mean() < tighter.mean() < bound.mean()
    assert expected.mean() - tighter.mean() > 0.4 * (expected.mean() - truth.mean())


def test_the_bound_of_an_image_does_not_depend_on_its_batch() -> None:
    shape = ImageShape(1, 4, 4, 17)
    x, model = some_images(shape), Density(shape, rising)
    whole = likelihood.split_nats(model, x, "dequantised_k16", Noise(0), batch_size=64)
    parts = likelihood.split_nats(model, x, "dequantised_k16", Noise(0), batch_size=7)
    torch.testing.assert_close(whole.total, parts.total, rtol=1e-6, atol=0)


def test_a_subset_is_in_order_the_same_each_time_and_from_all_over() -> None:
    chosen = likelihood.subset(10_000, 1_000)
    assert torch.equal(chosen, likelihood.subset(10_000, 1_000))
    assert bool((chosen.diff() > 0).all())
    assert int(chosen[0]) >= 0
    assert int(chosen[-1]) < 10_000
    assert abs(int((chosen < 5_000).sum()) - 500) < 80  # five standard deviations
    assert set(likelihood.subset(10_000, 100).tolist()) < set(chosen.tolist())
    assert likelihood.subset(7, 1_000).tolist() == list(range(7))


@pytest.mark.parametrize("shape", [ImageShape(1, 4, 4, 17), ImageShape(3, 128, 160, 256)])
def test_a_batch_is_bounded_by_images_and_by_pixels_and_progress_is_told(shape: ImageShape) -> None:
    sizes: list[int] = []

    def density(y: Tensor) -> Tensor:
        sizes.append(len(y))
        return torch.zeros(len(y))

    told: list[int] = []
    n = 600 if shape.dims < 50_000 else 2
    likelihood.split_nats(Density(shape, density), some_images(shape, n), "dequantised", Noise(0), progress=told.append)
    assert sizes == ([500, 100] if n == 600 else [1, 1])
    assert told == ([500, 600] if n == 600 else [1, 2])


def test_a_density_by_logit_has_discrete_probabilities_that_sum_to_one() -> None:
    """Sum over levels of E_u[p((x + u) / L)] / L is the integral of p: wrong without the Jacobian."""
    levels, steps = 17, 2_000

    def log_normal(y: Tensor) -> Tensor:
        z, log_det = likelihood.logit(y, 0.0)
        return log_det - 0.5 * ((z - 0.5) ** 2 + math.log(2 * math.pi)).flatten(1).sum(1)

    u = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    x = torch.arange(levels).repeat_interleave(steps).to(torch.uint8).view(-1, 1, 1, 1)
    y = likelihood.dequantise(x, levels, u.repeat(levels).view(-1, 1, 1, 1))
    assert float(log_normal(y).exp().mean()) == pytest.approx(1, abs=1e-4)


def test_bits_per_dim_divides_by_log_2_and_every_channel() -> None:
    shape = ImageShape(3, 2, 5, 256)
    assert likelihood.bits_per_dim(30 * math.log(2) * 1.5, shape) == pytest.approx(1.5)
    assert float(likelihood.bits_per_dim(torch.tensor(30.0), shape)) == pytest.approx(math.log2(math.e))


class Stated(GenerativeModel, HasLikelihood):
    """A model whose nats are stated, with parts."""

    likelihoods = {"vlb": "upper_bound"}  # noqa: RUF012 - the contract's class variable

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        first = torch.arange(noise.first, noise.first + len(x)).double()
        total = torch.where(first == 5, self.value, first)
        return Nats(total, {"L_T": total / 4, "L_0": 3 * total / 4})

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        raise NotImplementedError


def test_a_models_own_likelihood_passes_unchanged_with_its_parts() -> None:
    x = torch.zeros(11, 1, 2, 2, dtype=torch.uint8)
    nats = likelihood.split_nats(Stated(5.0), x, "vlb", Noise(0), batch_size=4)
    assert nats.total.tolist() == list(range(11))
    torch.testing.assert_close(sum(nats.parts.values()), nats.total)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_single_nan_or_infinity_fails_the_whole_split(value: float) -> None:
    x = torch.zeros(11, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(DivergedError, match="1 of 4 images are NaN or infinite"):
        likelihood.split_nats(Stated(value), x, "vlb", Noise(0), batch_size=4)


def test_an_unknown_likelihood_is_refused_with_what_there_is() -> None:
    with pytest.raises(UserError, match="no likelihood 'exact'; it has vlb"):
        likelihood.image_nats(Stated(0.0), torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "exact", Noise(0))


def test_logistic_far_off_and_very_wide_is_finite_and_has_a_gradient() -> None:
    """A network's first steps can put the mean hundreds of ranges away; the bin's width must not cancel to 0."""
    mean = torch.tensor([500.0, -3e4, 1e6], requires_grad=True)
    log_scale = torch.tensor([5.0, 5.0, 5.0], requires_grad=True)
    nats = likelihood.discretised_logistic(torch.tensor([100, 7, 200], dtype=torch.uint8), mean, log_scale, 256).sum()
    nats.backward()
    assert torch.isfinite(nats)
    assert mean.grad is not None
    assert log_scale.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert torch.isfinite(log_scale.grad).all()
