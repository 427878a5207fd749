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
LAYERS = 5

What = Literal["density", "training", "sampling"]
Flows = Callable[[], "dict[str, Built]"]

MEASURES = {
    "density": ("largest difference of log p, relative to the largest |log p|", 1e-4),
    "training": ("relative difference of the first loss", 1e-4),
    "sampling": ("largest difference of draws from one noise, in standard deviations", 1e-2),
}


def contest(name: str, what: What, dims: int, batch: int, flows: Flows, times: int = 1, rounds: int = 9) -> Contest:
    """One kind of work by all the flows; dims: of x.

    times: batches, or steps of training, in one call; the answer is that of the first.
    """
    import torch

    from bench.measure.memory import keep_freed_memory

    keep_freed_memory()
    built = flows()
    x = 0.5 * torch.randn(batch, dims, generator=torch.Generator().manual_seed(1))
    works = {
        "density": lambda flow: _density(flow, x, times),
        "training": lambda flow: _training(flow, x, times),
        "sampling": lambda flow: _sampling(flow, batch, times),
    }
    made = {name: works[what](flow) for name, flow in built.items()}
    ours, *peers = [
        Contender(lib, made[lib], "trilemma-bench" if lib == "trilemma" else lib, note=flow.note)
        for lib, flow in built.items()
    ]
    agree = {peer.name: partial(_agree, what, built[peer.name].expected) for peer in peers}
    return Contest(name, GROUP, ours, tuple(peers), agree, rounds)


def _first(call: Callable[[], Any], times: int) -> Any:
    found = call()
    for _ in range(times - 1):
        call()
    return found


def _density(flow: Built, x: Any, times: int) -> Callable[[], Any]:
    import torch

    flow.model.eval()

    @torch.no_grad()
    def work() -> Any:
        return _first(lambda: flow.log_p(x), times)

    return work


def _training(flow: Built, x: Any, times: int) -> Callable[[], Any]:
    """Steps of maximum likelihood; the answer is the loss before the first of them."""
    import torch

    flow.model.train()
    optimiser = torch.optim.Adam(flow.model.parameters(), lr=1e-4, fused=True)

    def work() -> Any:
        losses = []
        for _ in range(times):
            loss = -flow.log_p(x).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.detach())
        return losses[0]

    return work


def _sampling(flow: Built, n: int, times: int) -> Callable[[], Any]:
    import torch

    flow.model.eval()

    @torch.no_grad()
    def work() -> Any:
        torch.default_generator.manual_seed(2)  # that all libraries draw from
        return _first(lambda: flow.sample(n), times)

    return work


def _agree(what: What, expected: str, ours: Any, theirs: Any) -> Agreement:
    scale = ours.std() if what == "sampling" else ours.abs().max()
    measure, allowed = MEASURES[what]
    return Agreement(measure, float((ours - theirs).abs().max() / scale), allowed, expected)


def _name(kind: str, what: What, size: str, batch: int, times: int) -> str:
    one, many = ("one step", "steps") if what == "training" else ("one batch", "batches")
    return f"{kind} {what}, {size}, {one if times == 1 else f'{times} {many}'} of {batch}"


def _entry(kind: str, what: What, dims: int, width: int, batch: int, times: int, rounds: int = 9) -> Entry:
    """Of perceptrons with two hidden layers."""
    name = _name(kind, what, f"{dims} dimensions, {LAYERS} layers of {width} and {width} units", batch, times)

    def flows() -> dict[str, Built]:
        from bench.peers import equal_flows

        assert equal_flows.LAYERS == LAYERS
        if kind == "RealNVP":
            return equal_flows.realnvp(dims, (width, width))
        return equal_flows.autoregressive("MAF" if kind == "MAF" else "IAF", dims, (width, width))

    def make(folder: Path) -> Contest:
        return contest(name, what, dims, batch, flows, times, rounds)

    return Entry(name, GROUP, make, ("zuko",))


def _conv_entry(what: What, side: int, batch: int, times: int) -> Entry:
    name = _name("RealNVP", what, f"{side}x{side} pixels, {LAYERS} couplings of convolutions", batch, times)

    def flows() -> dict[str, Built]:
        from bench.peers import conv_flows

        return conv_flows.realnvp(side)

    def make(folder: Path) -> Contest:
        return contest(name, what, side * side, batch, flows, times)

    return Entry(name, GROUP, make, ("zuko",))


ENTRIES: tuple[Entry, ...] = (
    _entry("MAF", "density", 64, 256, 256, 20),
    _entry("MAF", "density", 784, 512, 256, 3),
    _entry("MAF", "training", 64, 256, 64, 10),
    _entry("MAF", "training", 64, 256, 256, 5),
    _entry("MAF", "training", 784, 512, 64, 3),
    _entry("MAF", "training", 784, 512, 256, 1),
    _entry("MAF", "sampling", 64, 256, 1, 5),
    _entry("MAF", "sampling", 64, 256, 16, 5),
    _entry("MAF", "sampling", 784, 512, 1, 1, rounds=6),
    _entry("IAF", "density", 64, 256, 16, 5),
    _entry("IAF", "training", 64, 256, 64, 1),
    _entry("IAF", "sampling", 64, 256, 256, 20),
    _entry("IAF", "sampling", 784, 512, 16, 5),
    _entry("RealNVP", "density", 64, 256, 256, 20),
    _entry("RealNVP", "density", 784, 512, 256, 5),
    _entry("RealNVP", "training", 64, 256, 64, 10),
    _entry("RealNVP", "training", 784, 512, 64, 3),
    _entry("RealNVP", "sampling", 64, 256, 16, 50),
    _entry("RealNVP", "sampling", 784, 512, 16, 10),
    _conv_entry("training", 8, 64, 3),
    _conv_entry("training", 28, 64, 1),
    _conv_entry("density", 28, 64, 1),
    _conv_entry("sampling", 28, 16, 3),
)
