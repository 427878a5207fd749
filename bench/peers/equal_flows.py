"""MAF, IAF and RealNVP of equal widths and weights: ours, and those that zuko, nflows and normflows build."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from baselines.nets.autoregressive_flow import (
    AffineAutoregressive,
    InverseAutoregressive,
    MaskedAutoregressive,
    Reversal,
)
from baselines.nets.couplings import Chain, Flatten, Flow, SplitCoupling
from bench.peers import flow_weights as weights
from bench.peers.contest import installed

LAYERS = 5

Kind = Literal["MAF", "IAF"]

NO_ACTIVATION = (
    "normflows' MADE of plain blocks has no activation after its first layer, so that the same weights make another "
    "function (and less work)"
)


@dataclass(frozen=True)
class Built:
    """A flow of one library.

    Attributes:
        model: its module.
        log_p: log density (B,) of x (B, D).
        sample: n draws (n, D), noise from torch's default generator.
        expected: why it may have another density than ours.
        note: what a reader must know of how it was built.
    """

    model: nn.Module
    log_p: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    expected: str = ""
    note: str = ""

    @property
    def parameters(self) -> int:
        """How many numbers it learns."""
        return sum(p.numel() for p in self.model.parameters())


class Density(nn.Module):
    """log p(x) of one of our flows over a standard normal."""

    def __init__(self, flow: Flow, *shape: int) -> None:
        super().__init__()
        self.flow, self.shape = flow, shape

    def forward(self, x: Tensor) -> Tensor:
        """(B,) of x (B, D)."""
        z, log_det = self.flow(x.view(-1, *self.shape))
        log_p: Tensor = log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        return log_p

    def draw(self, n: int) -> Tensor:
        """(n, D), noise from torch's default generator, as the libraries take theirs."""
        x: Tensor = self.flow(torch.randn(n, math.prod(self.shape)), reverse=True)[0]
        return x.flatten(1)


# MAF and IAF


def autoregressive(kind: Kind, dims: int, hidden: Sequence[int], seed: int = 0) -> dict[str, Built]:
    """Ours first; those libraries that are installed. The layers go through the dimensions to and fro."""
    if len(set(hidden)) != 1:
        raise ValueError(f"expected hidden layers of one width, which is all that nflows has, got {list(hidden)}")
    pairs, generator = weights.pairs_of(dims, hidden), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[AffineAutoregressive] = []
        for _ in range(LAYERS):
            layer = (MaskedAutoregressive if kind == "MAF" else InverseAutoregressive)(dims, hidden)
            factors = weights.random_factors(dims, generator)
            weights.prepare(layer.net, 1 / factors if kind == "MAF" else factors, pairs)
            layers.append(layer)
        between = [flow for layer in layers for flow in (layer, Reversal())][:-1]
        density = Density(Chain(*between), dims)
        built = {"trilemma": Built(density, density, density.draw)}
        makers = {"zuko": _zuko, "nflows": _nflows, "normflows": _normflows}
        built |= {name: make(kind, layers, dims, hidden, pairs) for name, make in makers.items() if installed(name)}
    assert len({flow.parameters for flow in built.values()}) == 1, "premise: as many weights in all"
    return built


Pairs = Sequence[tuple[Tensor, Tensor]]
Layers = Sequence[AffineAutoregressive]


def _rows(dims: int, order: Tensor, shift_first: bool, raw: weights.Raw, kind: Kind) -> weights.Rows:
    """Shift and scale of a dimension beside each other."""
    shift, scale = (0, 1) if shift_first else (1, 0)
    return weights.Rows(2 * order + shift, 2 * order + scale, raw, opposite=kind == "MAF")


def _zuko(kind: Kind, layers: Layers, dims: int, hidden: Sequence[int], pairs: Pairs) -> Built:
    import zuko

    flow = zuko.flows.MAF(dims, transforms=LAYERS, hidden_features=tuple(hidden))
    up = torch.arange(dims)
    for k, (layer, made) in enumerate(zip(layers, flow.transform.transforms, strict=True)):
        linears = [part for part in made.hyper if isinstance(part, nn.Linear)]
        order = up if k % 2 == 0 else up.flip(0)
        weights.copy_masked(layer.net, linears, pairs, order, _rows(dims, order, True, weights.zuko_raw, kind))
    if kind == "IAF":
        flow = zuko.flows.Flow([made.inv for made in flow.transform.transforms], flow.base)
    note = "" if kind == "MAF" else "the layers of its MAF turned round by .inv"
    return Built(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)), note=note)


def _made(made: Any) -> list[nn.Linear]:
    """The layers of a MADE of nflows, from which that of normflows comes."""
    return [made.initial_layer, *(block.linear for block in made.blocks), made.final_layer]


def _nflows(kind: Kind, layers: Layers, dims: int, hidden: Sequence[int], pairs: Pairs) -> Built:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as NFlow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform, InverseTransform
    from nflows.transforms.permutations import ReversePermutation

    parts: list[nn.Module] = []
    up = torch.arange(dims)
    for layer in layers:
        made = MaskedAffineAutoregressiveTransform(
            dims, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
        )
        rows = _rows(dims, up, False, weights.softplus_raw, kind)
        weights.copy_masked(layer.net, _made(made.autoregressive_net), pairs, up, rows)
        parts += [made if kind == "MAF" else InverseTransform(made), ReversePermutation(dims)]
    flow = NFlow(CompositeTransform(parts[:-1]), StandardNormal([dims]))
    return Built(flow, flow.log_prob, flow.sample, note="" if kind == "MAF" else "its layers in InverseTransform")


def _normflows(kind: Kind, layers: Layers, dims: int, hidden: Sequence[int], pairs: Pairs) -> Built:
    import normflows

    parts: list[Any] = []
    up = torch.arange(dims)
    for layer in layers:
        made = normflows.flows.MaskedAffineAutoregressive(
            dims, hidden[0], num_blocks=len(hidden) - 1, use_residual_blocks=False
        )
        rows = _rows(dims, up, False, weights.sigmoid_raw, kind)
        weights.copy_masked(layer.net, _made(made.autoregressive_net), pairs, up, rows)
        turn = normflows.flows.Permute(dims)
        turn.perm.copy_(up.flip(0))
        turn.inv_perm.copy_(up.flip(0))
        parts += [normflows.flows.Reverse(made) if kind == "MAF" else made, turn]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(dims, trainable=False), parts[-2::-1])
    note = (
        "its MaskedAffineAutoregressive in Reverse, since alone it is an IAF: the fast way is that of samples"
        if kind == "MAF"
        else "its MaskedAffineAutoregressive as it is, which its documentation calls MAF"
    )
    expected = NO_ACTIVATION if len(hidden) > 1 else ""
    return Built(flow, flow.log_prob, lambda n: flow.sample(n)[0], expected=expected, note=note)


# RealNVP of perceptrons: one half of the dimensions is changed by the other


def realnvp(dims: int, hidden: Sequence[int], seed: int = 0) -> dict[str, Built]:
    """Ours first; those libraries that are installed. In turn the second and the first half is changed."""
    if dims % 2:
        raise ValueError(f"expected an even number of dimensions, got {dims}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = [perceptron(dims // 2, dims, hidden) for _ in range(LAYERS)]
        for network in networks:
            weights.prepare_dense(linears(network)[-1], weights.random_factors(dims // 2, generator))
        halves = [SplitCoupling(network, dims, k % 2 == 0) for k, network in enumerate(networks)]
        density = Density(Chain(*halves, Flatten(dims, 1, 1)), dims, 1, 1)
        built = {"trilemma": Built(density, density, density.draw)}
        makers = {"zuko": _zuko_nvp, "nflows": _nflows_nvp, "normflows": _normflows_nvp}
        built |= {name: make(networks, dims, hidden) for name, make in makers.items() if installed(name)}
    ours, *theirs = built.values()
    assert {flow.parameters for flow in theirs} <= {ours.parameters - LAYERS * dims // 2}, "premise: but our scales"
    return built


def perceptron(into: int, out: int, hidden: Sequence[int]) -> nn.Sequential:
    """For (B, dimensions, 1, 1)."""
    widths = [into, *hidden]
    layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], out), nn.Unflatten(1, (out, 1, 1)))


def linears(network: nn.Module) -> list[nn.Linear]:
    """Its linear layers, in the order in which they were made."""
    return [part for part in network.modules() if isinstance(part, nn.Linear)]


def _zuko_nvp(networks: Sequence[nn.Module], dims: int, hidden: Sequence[int]) -> Built:
    import zuko

    half = torch.arange(dims // 2)
    rows = weights.Rows(2 * half, 2 * half + 1, weights.zuko_raw)
    parts = []
    for k, network in enumerate(networks):
        kept = (torch.arange(dims) < dims // 2) == (k % 2 == 0)
        parts.append(zuko.flows.GeneralCouplingTransform(dims, mask=kept, hidden_features=tuple(hidden)))
        theirs = [part for part in parts[-1].hyper if isinstance(part, zuko.nn.Linear)]
        weights.copy_dense(linears(network), theirs, rows)
    flow = zuko.flows.Flow(parts, zuko_base(dims))
    return Built(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def zuko_base(dims: int) -> Any:
    """A standard normal as zuko's own flows have it."""
    import zuko

    return zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, loc=torch.zeros(dims), scale=torch.ones(dims), buffer=True
    )


def _nflows_nvp(networks: Sequence[nn.Module], dims: int, hidden: Sequence[int]) -> Built:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow as NFlow
    from nflows.nn.nets import MLP
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    class WithoutContext(MLP):  # type: ignore[misc]
        def forward(self, x: Tensor, context: Any = None) -> Any:
            return super().forward(x)

    half = torch.arange(dims // 2)
    rows = weights.Rows(half, dims // 2 + half, weights.sigmoid_raw)
    parts = []
    for k, network in enumerate(networks):
        mask = (torch.arange(dims) >= dims // 2) == (k % 2 == 0)  # true where it is changed
        parts.append(AffineCouplingTransform(mask.int(), lambda a, b: WithoutContext([a], [b], list(hidden))))
        weights.copy_dense(linears(network), linears(parts[-1].transform_net), rows)
    flow = NFlow(CompositeTransform(parts), StandardNormal([dims]))
    return Built(flow, flow.log_prob, flow.sample)


def _normflows_nvp(networks: Sequence[nn.Module], dims: int, hidden: Sequence[int]) -> Built:
    import normflows

    half = torch.arange(dims // 2)
    rows = weights.Rows(2 * half, 2 * half + 1, torch.log, opposite=True)
    parts: list[Any] = []
    for network in networks:
        block = normflows.flows.AffineCouplingBlock(normflows.nets.MLP([dims // 2, *hidden, dims]))
        weights.copy_dense(linears(network), linears(block), rows)
        parts += [block, normflows.flows.Permute(dims, mode="swap")]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(dims, trainable=False), parts[-2::-1])
    return Built(flow, flow.log_prob, lambda n: flow.sample(n)[0])
