"""Training and sampling of our flows beside those of zuko and nflows, at the same widths, layers and batch.

Every contender gets the same batch, the same base density and the same optimiser; of RealNVP also the same networks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.flows.realnvp import Config as RealNvpConfig
from baselines.flows.realnvp import ScaleAndShift
from baselines.nets.autoregressive_flow import MaskedAutoregressive, Reversal
from baselines.nets.couplings import AffineCoupling, Chain, Flatten, Flow, SplitCoupling, checkerboard

pytestmark = pytest.mark.slow

Compare = Callable[..., dict[str, Any]]

LAYERS, ROUNDS = 5, 9
STEPS = 3  # of training in a round


def peers() -> tuple[Any, Any]:
    why = "needs the peers: pip install 'trilemma-bench[peers]'"
    return pytest.importorskip("zuko", reason=why), pytest.importorskip("nflows", reason=why)


class Density(nn.Module):
    """log p(x) of one of our flows over a standard normal."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        z, log_det = self.flow(x)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def steps_of_training(model: nn.Module, log_p: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def run() -> Tensor:
        for _ in range(STEPS):
            loss = -log_p(x).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return loss.detach()

    return run


def sizes(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def mafs(dims: int, hidden: Sequence[int]) -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """MAFs with a hidden layer of each width, and log p of each."""
    zuko, _ = peers()
    from nflows.flows.autoregressive import MaskedAutoregressiveFlow

    torch.manual_seed(0)
    layers = [MaskedAutoregressive(dims, hidden) for _ in range(LAYERS)]
    between: list[Flow] = [flow for layer in layers for flow in (layer, Reversal())][:-1]
    ours = Density(Chain(*between))
    zukos = zuko.flows.MAF(dims, transforms=LAYERS, hidden_features=hidden)
    assert len(set(hidden)) == 1, "premise: nflows has one width"
    nflow = MaskedAutoregressiveFlow(dims, hidden[0], LAYERS, len(hidden) - 1, use_residual_blocks=False)
    assert sizes(ours) == sizes(zukos) == sizes(nflow), "premise: the same weights"
    return {
        "trilemma": (ours, ours),
        "zuko": (zukos, lambda x: zukos().log_prob(x)),
        "nflows": (nflow, nflow.log_prob),
    }


@pytest.mark.parametrize(("dims", "width", "batch"), [(64, 256, 64), (64, 256, 256), (784, 512, 64), (784, 512, 256)])
def test_training_maf(compare: Compare, dims: int, width: int, batch: int) -> None:
    x = torch.randn(batch, dims, generator=torch.Generator().manual_seed(1))
    contenders = {name: steps_of_training(*found, x) for name, found in mafs(dims, (width, width)).items()}
    group = f"MAF training, {dims} dimensions, {LAYERS} layers of {width} and {width} units, batch {batch}"
    losses = compare(group, contenders, ROUNDS, "flows")
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


@pytest.mark.parametrize(("dims", "width", "batch", "rounds"), [(64, 256, 1, 5), (64, 256, 16, 5), (784, 512, 1, 1)])
def test_sampling_maf(compare: Compare, dims: int, width: int, batch: int, rounds: int) -> None:
    made = mafs(dims, (width, width))
    ours: Any = made["trilemma"][0].eval()
    zukos: Any = made["zuko"][0].eval()
    nflow: Any = made["nflows"][0].eval()
    torch.nn.init.normal_(ours.flow.flows[0].net.last.weight, std=0.01)
    z = torch.randn(batch, dims)
    contenders = {
        "trilemma": lambda: ours.flow(torch.randn(batch, dims), reverse=True)[0],
        "zuko": lambda: zukos().sample((batch,)),
        "nflows": lambda: nflow.sample(batch),
    }
    with torch.no_grad():
        torch.testing.assert_close(ours.flow(ours.flow(z, reverse=True)[0])[0], z, rtol=1e-3, atol=1e-3)
        group = f"MAF sampling, {dims} dimensions, {LAYERS} layers of {width} and {width} units, batch {batch}"
        found = compare(group, contenders, rounds, "flows")
    assert all(x.shape == (batch, dims) for x in found.values())


def perceptron(into: int, out: int, hidden: Sequence[int]) -> nn.Module:
    """For (B, dimensions, 1, 1)."""
    widths = [into, *hidden]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], out), nn.Unflatten(1, (out, 1, 1)))


@pytest.mark.parametrize(("side", "batch"), [(8, 64), (28, 64)])
def test_training_realnvp_of_convolutions(compare: Compare, side: int, batch: int) -> None:
    """Checkerboard couplings, each with the network of our RealNVP, in the coupling layers of each library."""
    zuko, _ = peers()
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as NFlow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    shape, config = (1, side, side), RealNvpConfig()
    masks = [checkerboard(*shape, k % 2) for k in range(LAYERS)]

    class OfHalf(nn.Module):
        """The same network for a library that hands over and takes back the dimensions themselves."""

        def __init__(self, mask: Tensor) -> None:
            super().__init__()
            self.network = ScaleAndShift(1, 2, side, side, config)
            self.register_buffer("kept", mask.flatten().nonzero()[:, 0])
            self.register_buffer("free", (1 - mask.flatten()).nonzero()[:, 0])

        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            image = x.new_zeros(len(x), side * side)
            image[:, self.kept] = x
            raw, shift = self.network(image.view(-1, *shape)).flatten(2).unbind(1)
            return torch.cat([shift[:, self.free], raw[:, self.free]], 1)

    class Zuko(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = nn.ModuleList(OfHalf(mask) for mask in masks)

        def forward(self, x: Tensor) -> Tensor:
            transforms = zuko.transforms
            x, total = x.flatten(1), x.new_zeros(len(x))
            for network, mask in zip(self.networks, masks, strict=True):

                def meta(kept: Tensor, network: nn.Module = network) -> Any:
                    shift, raw = network(kept).chunk(2, 1)
                    return transforms.DependentTransform(transforms.MonotonicAffineTransform(shift, raw), 1)

                x, log_det = transforms.CouplingTransform(meta, mask.flatten().bool()).call_and_ladj(x)
                total = total + log_det
            return total + zuko.distributions.DiagNormal(torch.zeros(side**2), torch.ones(side**2)).log_prob(x)

    torch.manual_seed(0)
    ours = Density(
        Chain(*(AffineCoupling(ScaleAndShift(1, 2, side, side, config), mask) for mask in masks), Flatten(*shape))
    )
    theirs = [AffineCouplingTransform(1 - mask.flatten(), lambda a, b, mask=mask: OfHalf(mask)) for mask in masks]
    nflow = NFlow(CompositeTransform(theirs), StandardNormal([side**2]))
    zukos = Zuko()
    assert sizes(ours) - LAYERS == sizes(nflow) == sizes(zukos), "premise: the same weights, but for our scales"
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))
    contenders = {
        "trilemma": steps_of_training(ours, ours, x),
        "zuko": steps_of_training(zukos, zukos, x),
        "nflows": steps_of_training(nflow, lambda x: nflow.log_prob(x.flatten(1)), x),
    }
    group = f"RealNVP training, {side}x{side} pixels, {LAYERS} couplings of {config.width} features, batch {batch}"
    losses = compare(group, contenders, ROUNDS, "flows")
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


@pytest.mark.parametrize(("dims", "width", "batch"), [(64, 256, 64), (784, 512, 64)])
def test_training_realnvp_of_perceptrons(compare: Compare, dims: int, width: int, batch: int) -> None:
    zuko, _ = peers()
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as NFlow
    from nflows.nn.nets import MLP
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    hidden = (width, width)
    torch.manual_seed(0)
    masks = [(torch.arange(dims) % 2 == k % 2).float() for k in range(LAYERS)]
    halves = [SplitCoupling(perceptron(dims // 2, dims, hidden), dims, k % 2 == 0) for k in range(LAYERS)]
    ours = Density(Chain(*halves, Flatten(dims, 1, 1)))
    zukos = zuko.flows.RealNVP(dims, transforms=LAYERS, hidden_features=hidden)

    class TheirMlp(MLP):
        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            return super().forward(x)

    made = [
        AffineCouplingTransform(1 - mask, lambda a, b: TheirMlp([a], [b], list(hidden), activation=F.relu))
        for mask in masks
    ]
    nflow = NFlow(CompositeTransform(made), StandardNormal([dims]))
    assert sizes(ours) - LAYERS * dims // 2 == sizes(nflow) == sizes(zukos), "premise: the same weights, but our scales"
    x = torch.randn(batch, dims, generator=torch.Generator().manual_seed(1))
    contenders = {
        "trilemma": steps_of_training(ours, lambda x: ours(x.view(-1, dims, 1, 1)), x),
        "zuko": steps_of_training(zukos, lambda x: zukos().log_prob(x), x),
        "nflows": steps_of_training(nflow, nflow.log_prob, x),
    }
    group = f"RealNVP training, {dims} dimensions, {LAYERS} couplings of {width} and {width} units, batch {batch}"
    losses = compare(group, contenders, ROUNDS, "flows")
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
