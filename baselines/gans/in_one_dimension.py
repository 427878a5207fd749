"""A GAN in one dimension: p_g moves onto p_data while D flattens (Goodfellow et al. 2014, arXiv:1406.2661, fig. 1).

Data are N(1, 1/2^2), and G(z) = a z + b of normal z, so that p_g = N(b, a^2) is known exactly, and with it the best
discriminator D*(x) = p_data / (p_data + p_g) (their eq. 2). D is a small perceptron; the losses are those of `gan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from baselines.contract import Chart, Line, Panel
from baselines.gans.losses import Objective, discriminator_objective, generator_objective
from baselines.noise import derive_seed

MEAN, DEVIATION = 1.0, 0.5  # of the data
START = (0.7, -1.5)  # a and b before training
STEPS = 2000
SHOWN = (0, 400, 800, STEPS)  # steps whose state is shown
_BATCH, _UNITS = 256, 32
_LR_GENERATOR, _LR_DISCRIMINATOR = 4e-3, 1e-2
_AVERAGED = 0.98  # decay of the averages of both players' weights, which are what is shown
_WARM_UP = 200  # steps of D alone before the first of G
_GRID = torch.linspace(-4, 4, 161, dtype=torch.float64)


@dataclass(frozen=True)
class Moment:
    """How things stand after some steps, along the grid."""

    step: int
    scale: float  # a
    offset: float  # b
    verdict: Tensor  # D on the grid, (161,) float64

    @property
    def generated(self) -> Tensor:
        """p_g on the grid."""
        return _normal(self.offset, abs(self.scale))

    @property
    def best(self) -> Tensor:
        """D* on the grid, 1/2 where p_g is p_data."""
        data, generated = self._logs()
        return torch.sigmoid(data - generated)

    @property
    def distance(self) -> float:
        """The total variation distance of p_g from p_data, by the trapezoidal rule on the grid."""
        return float(torch.trapezoid((data_density() - self.generated).abs(), _GRID)) / 2

    @property
    def unevenness(self) -> float:
        """E |D(x) - 1/2| over the data: 0 where D is flat at a half."""
        return float(torch.trapezoid(data_density() * (self.verdict - 0.5).abs(), _GRID))

    def _logs(self) -> tuple[Tensor, Tensor]:
        return _log_normal(MEAN, DEVIATION), _log_normal(self.offset, abs(self.scale))


def data_density() -> Tensor:
    """p_data on the grid, (161,) float64."""
    return _normal(MEAN, DEVIATION)


def play(objective: Objective, seed: int) -> tuple[Moment, ...]:
    """Train both players and return the moments that are shown; the same for the same seed."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "one dimension"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "one dimension, weights"))
        d = nn.Sequential(
            nn.Linear(1, _UNITS), nn.Tanh(), nn.Linear(_UNITS, _UNITS), nn.Tanh(), nn.Linear(_UNITS, 1)
        ).double()
    g = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    averages = [g.detach().clone(), parameters_to_vector(d.parameters()).detach().clone()]
    judge = _Judge(d)
    of_d = torch.optim.Adam(d.parameters(), _LR_DISCRIMINATOR, betas=(0.5, 0.999))
    of_g = torch.optim.Adam([g], _LR_GENERATOR, betas=(0.5, 0.999))

    def drawn(mean: float, deviation: float) -> Tensor:
        return mean + deviation * torch.randn(_BATCH, 1, generator=generator, dtype=torch.float64)

    moments = []
    for step in range(-_WARM_UP, STEPS + 1):
        if step in SHOWN:
            moments.append(Moment(step, float(averages[0][0]), float(averages[0][1]), judge(averages[1])))
        rate = min(1.0, 2 * (1 - step / STEPS))  # the second half dies away
        of_d.param_groups[0]["lr"], of_g.param_groups[0]["lr"] = rate * _LR_DISCRIMINATOR, rate * _LR_GENERATOR
        with torch.enable_grad():
            fake = g[0] * drawn(0, 1) + g[1]
            loss = discriminator_objective(objective, d(drawn(MEAN, DEVIATION))[:, 0], d(fake.detach())[:, 0]).total
            _descend(of_d, loss)
            if step >= 0:
                _descend(of_g, generator_objective(objective, d(g[0] * drawn(0, 1) + g[1])[:, 0]).total)
        for mean, now in zip(averages, (g.detach(), parameters_to_vector(d.parameters()).detach()), strict=True):
            mean.lerp_(now, 1 - _AVERAGED)
    return tuple(moments)


class _Judge:
    """D on the grid by any of its weights, given as one vector."""

    def __init__(self, d: nn.Module) -> None:
        self.d = d
        self.shapes = {name: p.shape for name, p in d.named_parameters()}

    @torch.no_grad()
    def __call__(self, weights: Tensor) -> Tensor:
        parts = torch.split(weights, [shape.numel() for shape in self.shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        logits: Tensor = torch.func.functional_call(self.d, named, (_GRID[:, None],))
        return torch.sigmoid(logits[:, 0])


def moving_onto(objective: Objective, seed: int) -> Chart:
    """The figure: p_data, p_g, D and D* at a few moments of the training."""
    moments, x = play(objective, seed), tuple(_GRID.tolist())

    def panel(moment: Moment) -> Panel:
        lines = (
            Line("p_data", x, tuple(data_density().tolist())),
            Line("p_g", x, tuple(moment.generated.tolist())),
            Line("D", x, tuple(moment.verdict.tolist())),
            Line("best D", x, tuple(moment.best.tolist())),
        )
        return Panel(f"step {moment.step}", lines)

    first, last = moments[0], moments[-1]
    caption = (
        f"A GAN of one dimension by this model's objective ({objective.replace('_', ' ')}): data N(1, 0.25), G(z) = "
        "a z + b, so that p_g and the best D for it, p_data / (p_data + p_g), are known exactly; D is a perceptron of "
        f"two layers that has learned alone for {_WARM_UP} steps first. Averages of the last steps' weights are shown. "
        f"The total variation distance of p_g from p_data goes from {first.distance:.2g} to {last.distance:.2g}, the "
        f"mean of |D - 1/2| over the data from {first.unevenness:.2g} to {last.unevenness:.2g}."
    )
    return Chart("p_g moves onto p_data", caption, "x", "density, or D(x)", tuple(map(panel, moments)))


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _log_normal(mean: float, deviation: float) -> Tensor:
    scale = max(deviation, 1e-6)
    return -((_GRID - mean) ** 2) / (2 * scale**2) - math.log(scale * math.sqrt(2 * math.pi))


def _normal(mean: float, deviation: float) -> Tensor:
    return _log_normal(mean, deviation).exp()
