"""Layers masked by degrees against brute force: what each output sees, and evaluation one dimension at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from baselines.nets.made import MaskedLinear, MaskedMlp, hidden_degrees

CASES: dict[str, dict[str, Any]] = {
    "natural": {},
    "shuffled": {"order": torch.tensor([3, 0, 5, 1, 4, 2])},
    "direct": {"direct": True, "order": torch.arange(6).flip(0)},
    "features": {"features": 3, "direct": True},
    "narrow": {"hidden": (4, 3), "direct": True},
    "linear": {"hidden": ()},
}


def made(case: str, dims: int = 6, outputs: int = 2) -> MaskedMlp:
    settings: dict[str, Any] = {"hidden": (20, 15), **CASES[case]}
    torch.manual_seed(0)
    net = MaskedMlp(dims, outputs=outputs, activation=nn.Tanh, **settings).double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # also where the mask is 0
    return net


def inputs(net: MaskedMlp, n: int) -> Tensor:
    shape = (n, net.dims, net.features) if net.features > 1 else (n, net.dims)
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", CASES)
def test_an_output_depends_on_all_dimensions_before_its_own_and_on_no_other(case: str) -> None:
    net = made(case)
    jacobian = jacrev(lambda x: net(x[None])[0])(inputs(net, 1)[0]).reshape(2, 6, 6, -1).abs()
    rank = net.order.argsort()
    assert torch.equal(jacobian.amax((0, 3)) > 0, rank[None, :] < rank[:, None])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_steps_give_the_outputs_of_the_whole_pass_when_only_what_comes_before_was_told(case: str) -> None:
    net = made(case)
    x = inputs(net, 5)
    whole, steps = net(x), net.steps(5)
    for k, place in enumerate(net.order.tolist()):
        torch.testing.assert_close(steps.outputs(k), whole[:, :, place], rtol=1e-12, atol=1e-12)
        steps.tell(k, x[:, place])


def test_steps_compute_no_unit_twice_and_all_that_is_seen() -> None:
    net = made("natural")
    for known, layer in zip(net.known[1:], net.hidden, strict=True):
        assert isinstance(layer, MaskedLinear)
        computed = [(known[k + 1] - known[k]) for k in range(6)]
        assert sum(computed) == len(layer.bias)
        assert all(count >= 0 for count in computed)


def test_what_a_unit_sees_is_the_first_part_of_the_layer_below() -> None:
    """So steps need no mask: a row is ones, then zeros, and the ones are those known at the unit's degree."""
    net = made("natural")
    for i, layer in enumerate(net.hidden):
        assert isinstance(layer, MaskedLinear)
        ones = layer.mask.sum(1)
        assert torch.equal(layer.mask, (torch.arange(layer.mask.shape[1]) < ones[:, None]).double())
        degrees = hidden_degrees(len(layer.bias), 6)
        assert ones.tolist() == [net.known[i][degree] for degree in degrees.tolist()]


@pytest.mark.parametrize(("width", "dims"), [(5, 6), (20, 6), (7, 4), (3, 9), (4, 1), (1000, 784)])
def test_hidden_degrees_lie_between_1_and_d_minus_1_sorted_and_evenly_spread(width: int, dims: int) -> None:
    degrees = hidden_degrees(width, dims)
    counts = torch.bincount(degrees, minlength=max(dims, 2))[1:]
    assert len(counts) == max(dims - 1, 1)
    assert torch.equal(degrees, degrees.sort().values)
    assert int(counts.max() - counts.min()) <= 1


def test_an_order_that_is_no_permutation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an order of the dimensions 0 \.\. 2, got \[0, 2, 2\]"):
        MaskedMlp(3, (4,), 1, order=torch.tensor([0, 2, 2]))


def test_a_given_order_is_kept_in_the_state_and_weights_follow_the_positions_in_it() -> None:
    net = made("shuffled")
    again = MaskedMlp(6, (20, 15), 2, order=torch.arange(6), activation=nn.Tanh).double().eval()
    again.load_state_dict(net.state_dict())
    x = inputs(net, 3)
    assert torch.equal(again.order, net.order)
    torch.testing.assert_close(again(x), net(x))
