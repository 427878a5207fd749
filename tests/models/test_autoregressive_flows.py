"""MAF and IAF: each triangular in its order, the slow direction against brute force, exact where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from baselines.autoregression import raster_order
from baselines.nets import in_turn as in_turn_module
from baselines.nets.autoregressive_flow import (
    AffineAutoregressive,
    InverseAutoregressive,
    MaskedAutoregressive,
    Permutation,
    Reversal,
)
from baselines.nets.couplings import Chain, Elementwise
from baselines.nets.in_turn import LARGEST_LOG_SCALE, in_turn
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

KINDS = {"maf": MaskedAutoregressive, "iaf": InverseAutoregressive}
HIDDEN: Sequence[Sequence[int]] = [(), (5,), (24,), (20, 13)]
RGB = ImageShape(3, 2, 3, 5)


def layer(name: str, dims: int = 7, hidden: Sequence[int] = (20, 13), spread: float = 0.5) -> AffineAutoregressive:
    torch.manual_seed(0)
    made: AffineAutoregressive = KINDS[name](dims, hidden).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return made


def vectors(n: int, dims: int = 7) -> Tensor:
    return torch.randn(n, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def affine(net: AffineAutoregressive, given: Tensor, conditions: Tensor, up: bool) -> tuple[Tensor, Tensor]:
    """exp(a) given + m, or exp(-a) (given - m), with m and a of one pass of the network; and +-a."""
    shift, raw = net.net(conditions).unbind(1)
    a = LARGEST_LOG_SCALE * raw.tanh()
    return (given * a.exp() + shift, a) if up else ((given - shift) * (-a).exp(), -a)


def fixed_point(net: AffineAutoregressive, given: Tensor, up: bool) -> tuple[Tensor, Tensor]:
    """The slow direction as its definition: after the k-th whole pass the first k dimensions are right."""
    out = torch.zeros_like(given)
    for _ in range(given.shape[1]):
        out, log_det = affine(net, given, out, up)
    return out, log_det.sum(1)


def unrolled(net: AffineAutoregressive, given: Tensor, up: bool) -> tuple[Tensor, Tensor]:
    """The same, a whole pass for each dimension of which one number is kept, for autograd to go back through."""
    out = torch.zeros_like(given)
    for k in range(given.shape[1]):
        out = torch.cat([out[:, :k], affine(net, given, out, up)[0][:, k : k + 1], out[:, k + 1 :]], 1)
    return out, affine(net, given, out, up)[1].sum(1)


@pytest.mark.parametrize("name", KINDS)
def test_the_jacobian_is_triangular_in_raster_order_and_then_in_its_reverse(name: str) -> None:
    model: Any = oracles.built(name, RGB, {"layers": 2, "width": 40}, perturb=0.3)
    standardise, order, first, reversal, second = model.flow.flows
    assert isinstance(standardise, Elementwise)
    rank, place = oracles.raster_order(RGB), torch.arange(RGB.dims)
    points = vectors(20, RGB.dims)[:, None]  # at one of them a ReLU may be closed
    for flow, rank_ in ((Chain(order, first), rank), (Chain(order, reversal, second), RGB.dims - 1 - rank)):
        allowed = {False: rank_[None, :] <= place[:, None], True: rank_[:, None] >= place[None, :]}
        for reverse, expected in allowed.items():  # of z in the layer's order by x as it is flat; and the other way
            found = torch.zeros_like(expected)
            for point in points:
                v = point if reverse else point.view(1, *RGB.chw)
                jacobian = torch.autograd.functional.jacobian(lambda v, f=flow, r=reverse: f(v, reverse=r)[0], v)
                found |= jacobian.reshape(RGB.dims, RGB.dims) != 0
            assert not (found & ~expected).any(), "nothing later is seen"
            if reverse == (name == "iaf"):
                assert torch.equal(found, expected), "what the network is given sees all that is earlier"


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 7, 30])
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_going_dimension_by_dimension_equals_the_fixed_point_of_whole_passes(
    name: str, dims: int, hidden: Sequence[int]
) -> None:
    flow, given, up = layer(name, dims, hidden, 0.3), vectors(4, dims), name == "maf"
    out, log_det = flow(given, reverse=up)
    expected, expected_log_det = fixed_point(flow, given, up)
    assert float((out - given).abs().max()) > 0.1, "premise: it does something"
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_det, expected_log_det, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_the_derivative_of_the_slow_direction_is_that_of_a_naive_unrolled_loop(
    name: str, hidden: Sequence[int]
) -> None:
    flow, given, up = layer(name, 7, hidden), vectors(4).requires_grad_(), name == "maf"
    weight = vectors(8)[4:]
    found = []
    for out, log_det in (flow(given, reverse=up), unrolled(flow, given, up)):
        loss = (out * weight + out.square()).sum() + (log_det * weight[:, 0]).sum()
        found.append((out, log_det, *torch.autograd.grad(loss, [given, *flow.parameters()])))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    assert all(bool(part.any()) for part in found[0]), "premise: everything has a derivative"


def test_the_gradient_of_the_loss_of_iaf_is_that_of_a_naive_unrolled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = oracles.built("iaf", ImageShape(1, 3, 3, 4), {"layers": 3, "width": 20})
    y = torch.rand(5, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weights = list(model.flow.parameters())
    ours = torch.autograd.grad(-model.log_density(y).mean(), weights)
    monkeypatch.setattr(InverseAutoregressive, "encode", lambda self, x: unrolled(self, x, up=False))
    expected = torch.autograd.grad(-model.log_density(y).mean(), weights)
    for gradient, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("up", [True, False])
def test_dropped_units_are_the_same_ones_for_all_dimensions_forth_and_back(up: bool) -> None:
    flow, given = layer("maf" if up else "iaf"), vectors(4).requires_grad_()
    widths = [known[-1] for known in flow.net.known[1:]]
    dropped = [2 * torch.randint(0, 2, (width, 4)).double() for width in widths]

    class Dropped(torch.nn.Module):
        """Takes the factors in turn, one layer after the other."""

        calls = 0

        def forward(self, h: Tensor) -> Tensor:
            self.calls += 1
            return h * dropped[(self.calls - 1) % len(dropped)].T

    ours = in_turn(flow.net, given, up, dropped)
    flow.net.dropout = Dropped()  # type: ignore[assignment]
    expected = unrolled(flow, given, up)
    for found, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    gradients = [
        torch.autograd.grad(out.square().sum() + log_det.sum(), [given, *flow.parameters()])
        for out, log_det in (ours, expected)
    ]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", KINDS)
def test_training_drops_hidden_units_in_the_slow_direction_too(name: str) -> None:
    torch.manual_seed(0)
    flow = KINDS[name](7, (4000,), dropout=0.4).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    given, up = vectors(4), name == "maf"
    flow.eval()
    plain = flow(given, reverse=up)[0]
    flow.train()
    noisy = torch.stack([flow(given, reverse=up)[0] for _ in range(3)])
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(plain, flow.eval()(given, reverse=up)[0])


@pytest.mark.parametrize("name", KINDS)
def test_torch_and_numpy_take_the_same_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the arrays stay torch's."""
    flow, up = layer(name), name == "maf"
    found = []
    for arrays in (in_turn_module._arrays, lambda tensors: [x.detach() for x in tensors]):
        monkeypatch.setattr(in_turn_module, "_arrays", arrays)
        given = vectors(4).requires_grad_()
        out, log_det = flow(given, reverse=up)
        found.append((out, *torch.autograd.grad(out.square().sum() + log_det.sum(), [given, *flow.parameters()])))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_no_unit_is_computed_twice(name: str) -> None:
    """Dimension by dimension an image takes no more multiplications than one whole pass, where masked ones count."""
    flow, given, up = layer(name, 30, (64, 64)), vectors(2, 30), name == "maf"
    with FlopCounterMode(display=False) as pass_:
        flow(given, reverse=not up)
    with FlopCounterMode(display=False) as turns:
        flow(given, reverse=up)
    assert 0.4 * pass_.get_total_flops() < turns.get_total_flops() < 0.7 * pass_.get_total_flops()


def test_a_maf_without_hidden_layers_and_with_fixed_scales_is_a_gaussian_of_known_covariance() -> None:
    """x = W x + b + s z with W strictly triangular, so x ~ N((1-W)^-1 b, (1-W)^-1 S^2 (1-W)^-T)."""
    flow = layer("maf", 5, ())
    with torch.no_grad():
        flow.net.last.weight[1::2] = 0  # of the a's
    w = (flow.net.last.weight * flow.net.last.mask)[::2].detach()
    b, raw = flow.net.last.bias.detach().view(5, 2).unbind(1)
    s = (LARGEST_LOG_SCALE * raw.tanh()).exp()
    inverse = torch.linalg.inv(torch.eye(5, dtype=torch.float64) - w)
    truth = torch.distributions.MultivariateNormal(inverse @ b, inverse @ torch.diag(s * s) @ inverse.T)
    x = vectors(6, 5)
    z, log_det = flow(x)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(normal.log_prob(z).sum(1) + log_det, truth.log_prob(x))
    torch.testing.assert_close(flow(z, reverse=True)[0], x)


def test_an_iaf_without_hidden_layers_and_with_fixed_scales_is_a_gaussian_of_known_covariance() -> None:
    """x = (W + S) z + b, so x ~ N(b, (W+S)(W+S)^T)."""
    flow = layer("iaf", 5, ())
    with torch.no_grad():
        flow.net.last.weight[1::2] = 0
    w = (flow.net.last.weight * flow.net.last.mask)[::2].detach()
    b, raw = flow.net.last.bias.detach().view(5, 2).unbind(1)
    factor = w + torch.diag((LARGEST_LOG_SCALE * raw.tanh()).exp())
    truth = torch.distributions.MultivariateNormal(b, factor @ factor.T)
    x = vectors(6, 5)
    z, log_det = flow(x)
    torch.testing.assert_close(torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det, truth.log_prob(x))


@pytest.mark.parametrize("name", KINDS)
def test_a_new_layer_is_the_identity_and_no_input_makes_it_overflow(name: str) -> None:
    x = vectors(3).float()
    for reverse in (False, True):
        out, log_det = KINDS[name](7, (20,)).eval()(x, reverse=reverse)
        assert torch.equal(out, x)
        assert not log_det.any()
    wild = layer(name, 7, (20,), spread=100).float()
    for reverse in (False, True):
        assert all(bool(torch.isfinite(found).all()) for found in wild(x, reverse=reverse))


def test_permuting_and_reversing_are_undone() -> None:
    x = torch.arange(2 * RGB.dims).view(2, *RGB.chw).double()
    order = raster_order(RGB)
    z, log_det = Permutation(order, *RGB.chw)(x)
    assert torch.equal(z[0], order.double())
    assert not log_det.any()
    assert torch.equal(Permutation(order, *RGB.chw)(z, reverse=True)[0], x)
    assert torch.equal(Reversal()(z)[0], z[:, torch.arange(RGB.dims - 1, -1, -1)])
    assert torch.equal(Reversal()(Reversal()(z)[0], reverse=True)[0], z)


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_random_orders_differ_from_layer_to_layer_and_are_the_same_in_every_build(name: str) -> None:
    def orders(seed: int) -> list[list[int]]:
        config = {"order": "random", "order_seed": seed, "layers": 4, "width": 40}
        model: Any = oracles.built(name, RGB, config, perturb=0.3)
        z = vectors(5, RGB.dims)
        x, log_det = model.flow(z, reverse=True)
        again, log_det_again = model.flow(x)
        torch.testing.assert_close(again, z, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(log_det_again, -log_det, rtol=1e-8, atol=1e-8)
        return [flow.order.tolist() for flow in model.flow.flows if isinstance(flow, Permutation)]

    found = orders(0)
    assert found[0] == raster_order(RGB).tolist()
    assert all(sorted(order) == list(range(RGB.dims)) for order in found)
    assert len({tuple(order) for order in found}) == len(found) == 4, "the first layer's, and one for each after it"
    assert orders(0) == found
    assert orders(1)[1:] != found[1:]
