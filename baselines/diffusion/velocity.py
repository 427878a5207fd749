"""Solvers of dx/dt = v(x, t) from noise at t = 1 to data at t = 0, in S equal steps, all called alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""velocity(x, t): dx/dt, a tensor of x's shape, all images at one time t in [0, 1]; never written to."""


@dataclass(frozen=True)
class Solver:
    """One step from x at time t to time s < t, its order of accuracy, and how often it calls the velocity.

    The error at the end falls as S^-order where the velocity is smooth, or sooner: along a flow of Gaussian data the
    midpoint rule's terms of second order cancel, and it falls as S^-3.
    """

    title: str
    step: Callable[[Tensor, Velocity, float, float], Tensor]
    order: int
    evaluations: int

    def run(self, x: Tensor, velocity: Velocity, steps: int) -> Tensor:
        """x_0 from x_1 (B, C, H, W) in `steps` equal steps; each costs `evaluations` calls."""
        for i in range(steps, 0, -1):
            x = self.step(x, velocity, i / steps, (i - 1) / steps)
        return x


def euler(x: Tensor, velocity: Velocity, t: float, s: float) -> Tensor:
    """Straight ahead: exact where the flow is straight."""
    return x.add(velocity(x, t), alpha=s - t)


def midpoint(x: Tensor, velocity: Velocity, t: float, s: float) -> Tensor:
    """The velocity half-way there, found by half a step of Euler's."""
    half = (t + s) / 2
    return x.add(velocity(euler(x, velocity, t, half), half), alpha=s - t)


def heun(x: Tensor, velocity: Velocity, t: float, s: float) -> Tensor:
    """The mean of the velocities here and at the end of a step of Euler's."""
    here = velocity(x, t)
    there = velocity(x.add(here, alpha=s - t), s)
    return x.add(here, alpha=(s - t) / 2).add_(there, alpha=(s - t) / 2)


SOLVERS: Mapping[str, Solver] = {
    "euler": Solver("Euler", euler, 1, 1),
    "midpoint": Solver("Midpoint", midpoint, 2, 2),
    "heun": Solver("Heun", heun, 2, 2),
}
