"""RealNVP: its layers one by one, its masks and scales. What every flow owes is asked in `test_flows.py`."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from baselines.config import build_config
from baselines.errors import UserError
from baselines.flows.realnvp import Config, RealNvp
from baselines.nets.couplings import (
    AffineCoupling,
    Chain,
    Elementwise,
    FactorOut,
    Flatten,
    Flow,
    SplitCoupling,
    Squeeze,
    checkerboard,
)
from baselines.types import ImageShape
from tests.models import oracles_likelihood as oracles

DIGITS = ImageShape(1, 8, 8, 17)


def small(shape: ImageShape, scales: int = 3) -> RealNvp:
    model = oracles.built("realnvp", shape, {"width": 6, "scales": scales})
    assert isinstance(model, RealNvp)
    return model


def inputs(shape: ImageShape, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, *shape.chw, generator=generator, dtype=torch.float64)


def coupling(mask: Tensor) -> AffineCoupling:
    channels = mask.shape[0]
    return AffineCoupling(torch.nn.Conv2d(channels, 2 * channels, 3, padding=1), mask)


def split(channels: int, keep_first: bool) -> SplitCoupling:
    kept = channels - channels // 2
    return SplitCoupling(torch.nn.Conv2d(kept, 2 * (channels // 2), 3, padding=1), channels, keep_first)


def initialised() -> Flow:
    made = Elementwise(4, 2, 4).double()
    made.initialise(2 + 3 * inputs(ImageShape(4, 2, 4), 20))
    return made


FLOWS = {
    "chain": lambda: Chain(coupling(checkerboard(4, 2, 4, 0)), Squeeze(), split(16, keep_first=False)),
    "checkerboard": lambda: coupling(checkerboard(4, 2, 4, 1)),
    "channelwise": lambda: split(4, keep_first=True),
    "channelwise, the second half kept": lambda: split(4, keep_first=False),
    "elementwise": initialised,
    "factor-out": lambda: FactorOut(Chain(coupling(checkerboard(2, 2, 4, 0)), Flatten(2, 2, 4)), 4, 2, 4),
    "flatten": lambda: Flatten(4, 2, 4),
    "squeeze": Squeeze,
}


@pytest.mark.parametrize("name", FLOWS)
def test_every_layer_by_itself_is_invertible_with_a_true_log_determinant(name: str) -> None:
    torch.manual_seed(0)
    flow, x = FLOWS[name]().double(), inputs(ImageShape(4, 2, 4))
    assert oracles.inverse_error(flow, x) < 1e-12
    assert oracles.log_det_sum(flow, x) < 1e-12
    torch.testing.assert_close(flow(x)[1], oracles.log_det_by_autograd(flow, x), atol=1e-10, rtol=0)


def test_what_a_coupling_keeps_is_unchanged_and_two_parities_change_every_dimension() -> None:
    masks = [checkerboard(4, 3, 5, parity) for parity in (0, 1)]
    assert torch.equal(masks[0] + masks[1], torch.ones(4, 3, 5))
    x = inputs(ImageShape(4, 3, 5))
    for kept in masks:
        assert torch.equal((coupling(kept).double()(x)[0] != x).all(0), kept == 0)
    for channels in (4, 5):
        x = inputs(ImageShape(channels, 3, 5))
        for keep_first in (True, False):
            changed = (split(channels, keep_first).double()(x)[0] != x).all(0).all(1).all(1)
            pattern = [False] * (channels - channels // 2) + [True] * (channels // 2)
            assert changed.tolist() == (pattern if keep_first else pattern[::-1])


@pytest.mark.parametrize("keep_first", [True, False])
def test_a_split_coupling_is_the_affine_coupling_with_a_channel_wise_mask(keep_first: bool) -> None:
    """Equation 9 with the mask of Fig. 3 (right), whose network's other inputs and outputs count for nothing."""
    ours, x = split(4, keep_first).double(), inputs(ImageShape(4, 3, 5))
    kept, free = ([0, 1], [2, 3]) if keep_first else ([2, 3], [0, 1])
    mask = torch.zeros(4, 3, 5)
    mask[kept] = 1

    class Whole(torch.nn.Module):
        def forward(self, masked: Tensor) -> Tensor:
            raw, shift = ours.network(masked[:, kept]).chunk(2, 1)
            out = torch.full((len(masked), 8, 3, 5), 7.0, dtype=masked.dtype)  # what the mask leaves out
            out[:, free], out[:, [4 + k for k in free]] = raw, shift
            return out

    for found, expected in zip(ours(x), AffineCoupling(Whole(), mask).double()(x), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_floor_keeps_the_first_scales_of_dimensions_that_hardly_vary_from_being_tiny() -> None:
    x = inputs(ImageShape(1, 2, 2), 200) * torch.tensor([[1.0, 2.0], [3.0, 1e-3]], dtype=torch.float64)
    plain, floored = Elementwise(1, 2, 2).double(), Elementwise(1, 2, 2, floor=0.2).double()
    z = plain.initialise(x), floored.initialise(x)
    assert torch.equal(z[0].flatten(1)[:, :3], z[1].flatten(1)[:, :3])
    std = x.flatten(1).std(0, unbiased=False)
    expected = std[3] / (0.2 * x.std(unbiased=False))
    torch.testing.assert_close(z[1].flatten(1).std(0, unbiased=False)[3], expected)
    torch.testing.assert_close(z[0].std(0, unbiased=False), torch.ones(1, 2, 2, dtype=torch.float64))


def test_squeezing_keeps_neighbours_together() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    z = Squeeze()(x)[0]
    assert z.shape == (1, 4, 2, 2)
    assert z[0, :, 0, 0].tolist() == [0, 1, 4, 5]


def test_the_last_layers_are_zero_at_first_so_that_the_flow_is_the_identity() -> None:
    flow = RealNvp(DIGITS, Config()).double().flow
    x = inputs(DIGITS)
    z, log_det = flow(x)
    torch.testing.assert_close(z.sort(1).values, x.flatten(1).sort(1).values)  # but for the order of dimensions
    assert not log_det.any()


def test_factored_out_dimensions_follow_half_the_channels_of_each_scale() -> None:
    def parts(flow: torch.nn.Module) -> list[tuple[int, ...]]:
        return [module.factored for module in flow.modules() if isinstance(module, FactorOut)]

    assert parts(small(ImageShape(1, 28, 28)).flow) == [(2, 14, 14), (4, 7, 7)]  # 7x7 cannot be squeezed
    assert parts(small(DIGITS, scales=2).flow) == [(2, 4, 4)]
    assert parts(small(oracles.TWO_PIXELS).flow) == []


def test_masks_alternate_so_that_every_dimension_is_changed_at_every_scale() -> None:
    couplings = [flow for flow in small(DIGITS).flow.modules() if isinstance(flow, AffineCoupling | SplitCoupling)]
    assert [(type(flow).__name__, *flow.network.position.shape[1:]) for flow in couplings] == (
        [("AffineCoupling", 8, 8)] * 3
        + [("SplitCoupling", 4, 4)] * 3
        + [("AffineCoupling", 4, 4)] * 3
        + [("SplitCoupling", 2, 2)] * 3
        + [("AffineCoupling", 2, 2)] * 4
    )
    for before, after in itertools.pairwise(couplings):
        if type(before) is not type(after):
            continue
        if isinstance(before, SplitCoupling):
            assert before.keep_first != after.keep_first
        else:
            assert torch.equal(before.mask + after.mask, torch.ones_like(before.mask))


def test_bad_settings_are_told() -> None:
    for wrong in ({"scales": 0}, {"couplings": 1}):
        with pytest.raises(UserError, match="realnvp: expected"):
            build_config(Config, wrong, "realnvp")
