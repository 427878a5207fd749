"""Density, training and sampling of MAF, IAF and RealNVP beside zuko, nflows and normflows, of equal weights.

Every contender has the same widths, layers, batch, base density and optimiser, and its weights are those of ours as far
as the layouts allow: `flow_weights` says how. Training is measured from the same first loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.peers.contest import Agreement, Contender, Contest, Entry

if TYPE_CHECKING:
    from bench.peers.equal_flows import Built

GROUP = "Flows"
LAYERS, STEPS = 5, 3

What = Literal["density", "training", "sampling"]
Flows = Callable[[], "dict[str, Built]"]

MEASURES = {
    "density": ("largest difference of log p, relative to the largest |log p|", 1e-4),
    "training": ("relative difference of the first loss", 1e-4),
    "sampling": ("largest difference of draws from one noise, in standard deviations", 1e-2),
}


def contest(name: str, what: What, dims: int, batch: int, flows: Flows, rounds: int = 9, steps: int = STEPS) -> Contest:
    """One kind of work by all the flows; dims: of x.

    steps: of training in one call.
    """
    import torch

    from bench.measure.memory import keep_freed_memory

    keep_freed_memory()
    built = flows()
    x = 0.5 * torch.randn(batch, dims, generator=torch.Generator().manual_seed(1))
    works = {
        "density": lambda flow: _density(flow, x),
        "training": lambda flow: _training(flow, x, steps),
        "sampling": lambda flow: _sampling(flow, batch),
    }
    made = {name: works[what](flow) for name, flow in built.items()}
    ours, *peers = [
        Contender(lib, made[lib], "trilemma-bench" if lib == "trilemma" else lib, note=flow.note)
        for lib, flow in built.items()
    ]
    agree = {peer.name: partial(_agree, what, built[peer.name].expected) for peer in peers}
    return Contest(name, GROUP, ours, tuple(peers), agree, rounds)


def _density(flow: Built, x: Any) -> Callable[[], Any]:
    import torch

    flow.model.eval()

    @torch.no_grad()
    def work() -> Any:
        return flow.log_p(x)

    return work


def _training(flow: Built, x: Any, steps: int) -> Callable[[], Any]:
    """Steps of maximum likelihood; the answer is the loss before the first of them."""
    import torch

    flow.model.train()
    optimiser = torch.optim.Adam(flow.model.parameters(), lr=1e-4, fused=True)

    def work() -> Any:
        losses = []
        for _ in range(steps):
            loss = -flow.log_p(x).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())
        return losses[0]

    return work


def _sampling(flow: Built, n: int) -> Callable[[], Any]:
    import torch

    flow.model.eval()

    @torch.no_grad()
    def work() -> Any:
        torch.default_generator.manual_seed(2)  # that all libraries draw from
        return flow.sample(n)

    return work


def _agree(what: What, expected: str, ours: Any, theirs: Any) -> Agreement:
    scale = ours.std() if what == "sampling" else ours.abs().max()
    measure, allowed = MEASURES[what]
    return Agreement(measure, float((ours - theirs).abs().max() / scale), allowed, expected)


def _entry(kind: str, what: What, dims: int, width: int, batch: int, rounds: int = 9, steps: int = STEPS) -> Entry:
    """Of perceptrons with two hidden layers."""
    name = f"{kind} {what}, {dims} dimensions, {LAYERS} layers of {width} and {width} units, batch {batch}"

    def flows() -> dict[str, Built]:
        from bench.peers import equal_flows

        assert equal_flows.LAYERS == LAYERS
        if kind == "RealNVP":
            return equal_flows.realnvp(dims, (width, width))
        return equal_flows.autoregressive("MAF" if kind == "MAF" else "IAF", dims, (width, width))

    def make(folder: Path) -> Contest:
        return contest(name, what, dims, batch, flows, rounds, steps)

    return Entry(name, GROUP, make, ("zuko",))


def _conv_entry(what: What, side: int, batch: int) -> Entry:
    name = f"RealNVP {what}, {side}x{side} pixels, {LAYERS} couplings of convolutions, batch {batch}"

    def flows() -> dict[str, Built]:
        from bench.peers import conv_flows

        return conv_flows.realnvp(side)

    def make(folder: Path) -> Contest:
        return contest(name, what, side * side, batch, flows)

    return Entry(name, GROUP, make, ("zuko",))


ENTRIES: tuple[Entry, ...] = (
    _entry("MAF", "density", 64, 256, 256),
    _entry("MAF", "density", 784, 512, 256),
    _entry("MAF", "training", 64, 256, 64),
    _entry("MAF", "training", 64, 256, 256),
    _entry("MAF", "training", 784, 512, 64),
    _entry("MAF", "training", 784, 512, 256),
    _entry("MAF", "sampling", 64, 256, 1),
    _entry("MAF", "sampling", 64, 256, 16),
    _entry("MAF", "sampling", 784, 512, 1, rounds=6),
    _entry("IAF", "density", 64, 256, 16),
    _entry("IAF", "training", 64, 256, 64, rounds=6, steps=1),
    _entry("IAF", "sampling", 64, 256, 256),
    _entry("IAF", "sampling", 784, 512, 16),
    _entry("RealNVP", "density", 64, 256, 256),
    _entry("RealNVP", "density", 784, 512, 256),
    _entry("RealNVP", "training", 64, 256, 64),
    _entry("RealNVP", "training", 784, 512, 64),
    _entry("RealNVP", "sampling", 64, 256, 16),
    _entry("RealNVP", "sampling", 784, 512, 16),
    _conv_entry("training", 8, 64),
    _conv_entry("training", 28, 64),
    _conv_entry("density", 28, 64),
    _conv_entry("sampling", 28, 16),
)
