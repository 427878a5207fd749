"""RealNVP of convolutions: our network in the coupling layers of each library, over checkerboard masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from baselines.flows.realnvp import Config, ScaleAndShift
from baselines.nets.couplings import AffineCoupling, Chain, Flatten, checkerboard
from bench.peers import flow_weights as weights
from bench.peers.contest import installed
from bench.peers.equal_flows import LAYERS, Built, Density, zuko_base

FEATURES = Config().width


class OfHalf(nn.Module):
    """Our network for a library that hands over and takes back the dimensions themselves: shifts, then raw scales."""

    kept: Tensor
    free: Tensor

    def __init__(self, network: ScaleAndShift, mask: Tensor) -> None:
        """mask: (1, H, W), 1 where x is kept."""
        super().__init__()
        self.network, self.shape = network, mask.shape
        self.register_buffer("kept", mask.flatten().nonzero()[:, 0])
        self.register_buffer("free", (1 - mask.flatten()).nonzero()[:, 0])

    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        """(B, kept) to (B, 2 free)."""
        image = x.new_zeros(len(x), self.shape.numel())
        image[:, self.kept] = x
        raw, shift = self.network(image.view(-1, *self.shape)).flatten(2).unbind(1)
        return torch.cat([shift[:, self.free], raw[:, self.free]], 1)


def _network(side: int) -> ScaleAndShift:
    return ScaleAndShift(1, 2, side, side, Config(dropout=0.0))


def _like(ours: ScaleAndShift, side: int, raw: weights.Raw) -> ScaleAndShift:
    """A copy with the same factor, which another library makes of another raw number."""
    made = _network(side)
    made.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert made.last.bias is not None
        assert ours.last.bias is not None
        made.last.bias[:1] = raw(torch.tanh(ours.last.bias[:1]).exp())
    return made


def realnvp(side: int, seed: int = 0) -> dict[str, Built]:
    """Ours first; zuko's and nflows', where they are installed; of images (1, side, side)."""
    masks = [checkerboard(1, side, side, k % 2) for k in range(LAYERS)]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = [_network(side) for _ in masks]
        for network in networks:
            nn.init.normal_(network.last.weight, std=0.05)
            with torch.no_grad():
                assert network.last.bias is not None
                network.last.weight[0] = 0
                network.last.bias[:1] = weights.ours_raw(weights.random_factors(1, generator))
        couplings = [AffineCoupling(network, mask) for network, mask in zip(networks, masks, strict=True)]
        density = Density(Chain(*couplings, Flatten(1, side, side)), 1, side, side)
        built = {"trilemma": Built(density, density, density.draw)}
        makers = {"zuko": _zuko, "nflows": _nflows}
        built |= {name: make(networks, masks, side) for name, make in makers.items() if installed(name)}
    ours, *theirs = built.values()
    assert {flow.parameters for flow in theirs} <= {ours.parameters - LAYERS}, "premise: but for our scales"
    return built


def _zuko(networks: list[ScaleAndShift], masks: list[Tensor], side: int) -> Built:
    import zuko

    class Coupling(zuko.lazy.LazyTransform):  # type: ignore[misc]
        def __init__(self, network: nn.Module, mask: Tensor) -> None:
            super().__init__()
            self.network, self.mask = network, mask.flatten().bool()

        def _affine(self, kept: Tensor) -> Any:
            shift, raw = self.network(kept).chunk(2, 1)
            return zuko.transforms.DependentTransform(zuko.transforms.MonotonicAffineTransform(shift, raw), 1)

        def forward(self, c: Tensor | None = None) -> Any:
            return zuko.transforms.CouplingTransform(self._affine, self.mask)

    halves = [OfHalf(_like(net, side, weights.zuko_raw), mask) for net, mask in zip(networks, masks, strict=True)]
    flow = zuko.flows.Flow([Coupling(half, mask) for half, mask in zip(halves, masks, strict=True)], zuko_base(side**2))
    return Built(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def _nflows(networks: list[ScaleAndShift], masks: list[Tensor], side: int) -> Built:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as NFlow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    halves = [OfHalf(_like(net, side, weights.sigmoid_raw), mask) for net, mask in zip(networks, masks, strict=True)]
    parts = [
        AffineCouplingTransform(1 - mask.flatten(), lambda a, b, half=half: half)
        for half, mask in zip(halves, masks, strict=True)
    ]
    flow = NFlow(CompositeTransform(parts), StandardNormal([side**2]))
    return Built(flow, flow.log_prob, flow.sample)
