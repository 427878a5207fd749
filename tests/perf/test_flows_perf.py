"""How long our flow layers take to train and to sample; beside other libraries they stand in bench/peers/flows.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.flows.realnvp import Config, ScaleAndShift
from baselines.nets.autoregressive_flow import InverseAutoregressive, MaskedAutoregressive, Reversal
from baselines.nets.couplings import AffineCoupling, Chain, Flatten, Flow, checkerboard

pytestmark = pytest.mark.slow

DIMS, WIDTH, LAYERS, BATCH, SIDE = 64, 256, 5, 64, 8


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def of_perceptrons(kind: type[MaskedAutoregressive] | type[InverseAutoregressive]) -> Flow:
    torch.manual_seed(0)
    layers = [kind(DIMS, (WIDTH, WIDTH)) for _ in range(LAYERS)]
    for layer in layers:
        torch.nn.init.normal_(layer.net.last.weight, std=0.01)
    between: list[Flow] = [flow for layer in layers for flow in (layer, Reversal())][:-1]
    return Chain(*between)


def of_convolutions() -> Flow:
    torch.manual_seed(0)
    masks = [checkerboard(1, SIDE, SIDE, k % 2) for k in range(LAYERS)]
    couplings = [AffineCoupling(ScaleAndShift(1, 2, SIDE, SIDE, Config()), mask) for mask in masks]
    return Chain(*couplings, Flatten(1, SIDE, SIDE))


FLOWS: dict[str, Callable[[], Flow]] = {
    "maf": lambda: of_perceptrons(MaskedAutoregressive),
    "iaf": lambda: of_perceptrons(InverseAutoregressive),
    "realnvp": of_convolutions,
}


def shaped(name: str) -> Tensor:
    x = torch.randn(BATCH, DIMS, generator=torch.Generator().manual_seed(1))
    return x.view(-1, 1, SIDE, SIDE) if name == "realnvp" else x


@pytest.mark.parametrize("name", FLOWS)
def test_a_step_of_training(benchmark: Any, name: str) -> None:
    flow, x = FLOWS[name](), shaped(name)
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)

    def step() -> Tensor:
        z, log_det = flow(x)
        loss = -(log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach()

    assert bool(torch.isfinite(benchmark.pedantic(step, rounds=20, warmup_rounds=2)))


@pytest.mark.parametrize("name", FLOWS)
def test_sampling(benchmark: Any, name: str) -> None:
    flow = FLOWS[name]().eval()
    z = torch.randn(BATCH, DIMS)
    with torch.no_grad():
        x = benchmark.pedantic(lambda: flow(z, reverse=True)[0], rounds=20, warmup_rounds=2)
        torch.testing.assert_close(flow(x)[0], z, rtol=1e-3, atol=1e-3)
