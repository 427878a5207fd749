"""How long diffusion sampling takes beside the network alone; other ways to run the network.

Beside the pipelines of diffusers it stands in bench/peers/diffusion.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.contract import Noise
from baselines.diffusion.ddpm import Config, Ddpm
from baselines.types import Draw, ImageShape
from bench.measure.memory import keep_freed_memory
from bench.measure.workload import capture_calls

pytestmark = pytest.mark.slow

Compare = Callable[..., dict[str, Any]]

SQUARE = ImageShape(1, 32, 32)
STEPS = 50
ROUNDS = 9
MOST_ARITHMETIC = 0.005  # of the network's own time


@pytest.fixture(autouse=True)
def as_cells_run() -> None:
    keep_freed_memory()


@pytest.fixture(scope="module")
def small() -> Ddpm:
    """A U-Net of 0.7 million parameters with random weights."""
    torch.manual_seed(0)
    model = Ddpm(SQUARE, Config(widths=(40, 72), blocks=2)).eval()
    for parameter in model.parameters():
        if not parameter.any():  # the zero-initialised layers too
            torch.nn.init.normal_(parameter, std=0.02)
    assert 0.6e6 < sum(p.numel() for p in model.unet.parameters()) < 0.8e6
    return model


class Answered(torch.nn.Module):
    """Stands in for a network: always the same answer, at once."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.register_buffer("answer", answer)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert isinstance(self.answer, Tensor)
        return self.answer


def arithmetic_s(model: Ddpm, draw: Draw, draws: int = 25) -> float:
    """CPU seconds of one step of a sampler beside its network's call: a draw of one image less as many bare calls."""
    network, bare = model.unet, Answered(torch.randn(1, *SQUARE.chw))
    steps, x, t = draw.steps or model.process.timesteps, torch.zeros(1, *SQUARE.chw), torch.zeros(1)
    spent = []
    model.unet = bare
    try:
        model.sample(1, draw, Noise(0))
        for i in range(draws):
            begin = time.thread_time()
            model.sample(1, draw, Noise(0, first=i))
            middle = time.thread_time()
            with torch.no_grad():
                for _ in range(steps):
                    bare(x, t)
            spent.append(2 * middle - begin - time.thread_time())
    finally:
        model.unet = network
    return statistics.median(spent) / steps


@pytest.mark.parametrize(
    ("draw", "rounds"),
    [
        (Draw("ddim", STEPS), 30),
        (Draw("ddim", STEPS, 1.0), 30),
        (Draw("ddpm", STEPS), 30),
        (Draw("ddpm"), 8),
    ],
    ids=lambda value: value.label() if isinstance(value, Draw) else "",
)
def test_a_draw_takes_the_time_of_its_network_calls(
    compare: Compare, benchmark: Any, small: Ddpm, draw: Draw, rounds: int
) -> None:
    with capture_calls(small) as calls:
        small.sample(1, draw, Noise(0))
    assert calls.count == (draw.steps or 1000)
    contenders = {
        f"{calls.count} bare forwards": lambda: calls.forward(calls.count),
        "the whole draw": lambda: small.sample(1, draw, Noise(0)),
    }
    compare(f"{draw.label()}, U-Net of 0.7M parameters, one 32x32 image", contenders, rounds, "diffusion")
    step_s = arithmetic_s(small, draw)
    share = step_s * calls.count / benchmark.extra_info["seconds"][benchmark.extra_info["ours"]]
    note = f"arithmetic after an instant network: {1e6 * step_s:.1f} µs a step, {share:.2%} of the forward"
    benchmark.extra_info["notes"] = {"the whole draw": note}
    assert share < MOST_ARITHMETIC
    assert benchmark.extra_info["spread"]["the whole draw"][0] < 1.01


def levels_apart(plain: Tensor, other: Tensor) -> str:
    apart = (plain.int() - other.int()).abs()
    return f"images at most {int(apart.max())} levels of 255 apart, {float(apart.float().mean()):.2g} in the mean"


WAYS: dict[str, dict[str, Any]] = {
    "contiguous weights": {"layout": "contiguous"},
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
    "compiled, bf16": {"compile": True, "precision": "bf16"},
}


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("way", WAYS)
def test_other_ways_to_run_the_network(compare: Compare, benchmark: Any, small: Ddpm, way: str, batch: int) -> None:
    steps = 20 if batch == 1 else 5

    def drawn(**options: Any) -> Tensor:
        return small.sample(batch, Draw("ddim", steps, options=options), Noise(0))

    contenders = {way: lambda: drawn(**WAYS[way]), "the plain call": drawn}
    group = f"DDIM, {steps} steps, U-Net of 0.7M parameters, batch {batch}: {way}"
    found = compare(group, contenders, ROUNDS, "diffusion")
    benchmark.extra_info["notes"] = {"the plain call": levels_apart(found["the plain call"], found[way])}
    with capture_calls(small) as calls:
        drawn(**WAYS[way])
    assert calls.count == steps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("batch", [1, 16])
def test_a_graph_on_a_gpu(benchmark: Any, small: Ddpm, batch: int) -> None:
    model, seconds = small.cuda(), {}
    for name, options in {"graph": {"graph": True}, "plain": {}}.items():
        times = []
        for _ in range(ROUNDS):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            model.sample(batch, Draw("ddim", 20, options=options), Noise(0, device="cuda"))
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        seconds[name] = statistics.median(times[2:])
    small.cpu()
    benchmark.group = f"CUDA graph, batch {batch}"
    benchmark.extra_info["seconds"] = seconds
    benchmark.pedantic(lambda: None, rounds=1)
    assert seconds["graph"] < seconds["plain"]
