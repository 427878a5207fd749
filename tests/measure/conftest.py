"""Synthetic samplers of known length, step count and memory, and a time that stands still unless it is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.contract import Draw, GenerativeModel, Given, ImageShape, Noise, Replays
from bench.measure.clock import Clock
from bench.measure.workload import Workload

SHAPE = ImageShape(1, 4, 4, 16)


@dataclass
class FakeTime:
    """A clock's reading that moves only when something spends it."""

    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds

    def spend(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Costs:
    """What each part of the synthetic sampler takes, in fake seconds."""

    forward_s: float = 0.0  # one network call, whatever the batch
    draw_s: float = 0.0  # of one `sample` call beside the network
    image_s: float = 0.0  # of each image
    first_s: float = 0.0  # more in the very first `sample` call


class Network(nn.Module):
    def __init__(self, time: FakeTime, costs: Costs) -> None:
        super().__init__()
        self.linear = nn.Linear(SHAPE.dims, SHAPE.dims, bias=False)
        self.time, self.costs = time, costs

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.time.spend(self.costs.forward_s)
        out: Tensor = self.linear(x) + t
        return out


class Stepper(GenerativeModel):
    """x <- x + net(x, t) / 10, S times; keeps a log of (n, first) of its `sample` calls."""

    network = "net"

    def __init__(self, time: FakeTime, costs: Costs) -> None:
        super().__init__()
        self.shape = SHAPE
        self.net = Network(time, costs)
        self.time, self.costs = time, costs
        self.log: list[tuple[int, int]] = []
        generator = torch.Generator().manual_seed(0)
        nn.init.normal_(self.net.linear.weight, std=0.3, generator=generator)

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        self.time.spend(self.costs.draw_s + n * self.costs.image_s + (0 if self.log else self.costs.first_s))
        self.log.append((n, noise.first))
        x = noise.normal("x", n, (SHAPE.dims,))
        for t in range(draw.steps or 1):
            x = x + self.net(x, torch.tensor(t / 10)) / 10
        if given is not None and given.labels is not None:
            x = x + given.labels[:, None]
        return (4 * x + 8).clamp(0, 15).to(torch.uint8).view(n, *SHAPE.chw)


class NoNetwork(Stepper):
    network = None


class Replayer(Stepper, Replays):
    network = None


class ThroughMethod(Stepper):
    """Calls a method of its network, which no forward hook sees."""

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        self.net.linear.forward(noise.normal("x", n, (SHAPE.dims,)))
        return torch.zeros(n, *SHAPE.chw, dtype=torch.uint8)


class Growing(Stepper):
    """Its network sees a longer input at each step, as a text model does without a cache."""

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        x = noise.normal("x", n, (1, SHAPE.dims))
        for t in range(draw.steps or 1):
            x = torch.cat([x, self.net(x, torch.tensor(float(t)))[:, -1:]], 1)
        return torch.zeros(n, *SHAPE.chw, dtype=torch.uint8)


@dataclass
class Bench:
    """A fake time, a clock that reads it, and workloads that spend it."""

    time: FakeTime = field(default_factory=FakeTime)

    @property
    def clock(self) -> Clock:
        return Clock(torch.device("cpu"), self.time.now)

    def workload(
        self, kind: str = "Stepper", steps: int | None = None, given: Given | None = None, **costs: float
    ) -> Any:
        model = KINDS[kind](self.time, Costs(**costs))
        return Workload(model.eval(), Draw(steps=steps), Noise(7), given)


KINDS: dict[str, Callable[[FakeTime, Costs], Stepper]] = {
    kind.__name__: kind for kind in (Stepper, NoNetwork, Replayer, ThroughMethod, Growing)
}


@pytest.fixture
def bench() -> Bench:
    return Bench()
