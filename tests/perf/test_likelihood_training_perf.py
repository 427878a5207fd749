"""How much faster PixelCNN trains than the two PixelRNNs of its width and depth; how the recursion is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import registry
from baselines.autoregression import Autoregressive
from baselines.autoregressive.lattice import Plan, diagonals, lattice_lstm, rows
from baselines.config import build_config
from baselines.types import ImageShape
from bench.measure.memory import keep_freed_memory

pytestmark = pytest.mark.slow

Compare = Callable[..., dict[str, Any]]

WIDTH, DEPTH, ROUNDS = 64, 5, 9
CASES = {"digits": (ImageShape(1, 8, 8, 17), 64), "MNIST": (ImageShape(1, 28, 28, 256), 16)}


@pytest.fixture(autouse=True)
def as_cells_run() -> None:
    keep_freed_memory()


def step_of(name: str, shape: ImageShape, batch: int) -> Callable[[], float]:
    """One forward and backward pass of the training loss of a model of the common width and depth."""
    torch.manual_seed(0)
    depth = {"blocks" if name == "pixelcnn" else "layers": DEPTH}
    entry = registry.load(name).model
    model = entry.build(shape, build_config(entry.config, {"width": WIDTH, **depth}, name)).train()
    assert isinstance(model, Autoregressive)
    images = torch.randint(0, shape.levels, (batch, *shape.chw)).to(torch.uint8)

    def step() -> float:
        model.zero_grad(set_to_none=True)
        loss = model.dimension_nats(images).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    return step


@pytest.mark.parametrize("case", CASES)
def test_training_of_pixelcnn_beside_both_pixelrnns(compare: Compare, benchmark: Any, case: str) -> None:
    shape, batch = CASES[case]
    names = {"PixelCNN": "pixelcnn", "Row LSTM": "pixelrnn_row", "Diagonal BiLSTM": "pixelrnn_diagonal"}
    contenders = {title: step_of(name, shape, batch) for title, name in names.items()}
    size = f"{shape.height}x{shape.width}, {shape.levels} levels"
    group = f"One training step, {size}, batch {batch}, {WIDTH} features, {DEPTH} blocks"
    compare(group, contenders, ROUNDS, "likelihood")
    seconds = benchmark.extra_info["seconds"]
    each = {title: f"{1e3 * spent / batch:.3g} ms an image" for title, spent in seconds.items()}
    benchmark.extra_info["notes"] = {title: f"{each[title]}, PixelCNN {each['PixelCNN']}" for title in list(names)[1:]}
    assert all(ratio > 1 for ratio in benchmark.extra_info["ratio"].values()), "the paper's order of speeds"


def plain(gates: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """The same recursion as autograd sees it, step by step, with nothing written by hand."""
    size, found = weight.shape[2] // 4, []
    hidden = cell = gates.new_zeros(len(gates), 0, gates.shape[2], size)
    for index, step in enumerate(plan):
        count = step.end - step.begin
        before = plan[index - 1] if index else step
        margin = torch.nn.functional.pad(hidden, (0, 0, 0, 0, 1, count + 2))
        cells = torch.nn.functional.pad(cell, (0, 0, 0, 0, 1, count + 2))
        assert hidden.shape[1] in (0, before.end - before.begin)
        seen = torch.cat([margin[:, tap + 1 : tap + 1 + count] for tap in step.taps], -1)
        now = gates[:, step.begin : step.end] + (seen.flatten(1, 2) @ weight).view(len(gates), count, -1, 4 * size)
        o, f, i, g = now.chunk(4, -1)
        start = step.taps[step.cell] + 1
        cell = f.sigmoid() * cells[:, start : start + count] + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        found.append(hidden)
    return torch.cat(found, 1)


@pytest.mark.parametrize("kind", ["rows", "diagonals"])
def test_the_recursion_beside_one_left_to_autograd(compare: Compare, kind: str) -> None:
    plan, directions, taps = {"rows": (rows(28, 28), 1, 3), "diagonals": (diagonals(28, 29), 2, 2)}[kind]
    half = WIDTH // 2
    gates = torch.randn(directions, plan[-1].end, 16, 4 * half, requires_grad=True)
    weight = (0.1 * torch.randn(directions, taps * half, 4 * half)).requires_grad_()

    def gradients(of: Callable[[Tensor, Tensor, Plan], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad(of(gates, weight, plan).square().mean(), (gates, weight))

    contenders = {"trilemma": gradients(lattice_lstm), "by autograd": gradients(plain)}
    group = f"Recursion of a PixelRNN layer along {kind}, 28x28, batch 16, {half} features, with its gradient"
    found = compare(group, contenders, ROUNDS, "likelihood")
    for ours, theirs in zip(found["trilemma"], found["by autograd"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
