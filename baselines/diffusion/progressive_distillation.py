"""Progressive distillation: a DDIM sampler's steps are halved, and again (Salimans and Ho 2022, arXiv:2202.00512).

Each student begins as a copy of its teacher and learns to do in one step what that one's deterministic DDIM does in
two (their algorithm 2); then it teaches the next. The first teacher is a trained DDPM that predicts v or x_0: an answer
in eps tells no x_0 where only noise is left (their section 4). All students stay in the checkpoint, so that a draw may
take any of their numbers of steps. Times are real: 0, 1/N, ..., 1 of the chain, whatever T is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from baselines.contract import (
    Batch,
    Context,
    Distils,
    Draw,
    GenerativeModel,
    Given,
    ImageShape,
    Losses,
    Model,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.diffusion.denoiser import Denoiser
from baselines.diffusion.gaussian_diffusion import GaussianDiffusion
from baselines.diffusion.process import make_process
from baselines.diffusion.samplers import linear_step, run_steps
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE, UNet

Network = Callable[[Tensor, Tensor], Tensor]
"""network(x_t, times): its answer, of x_t's shape; times (B,) in 0 .. TIME_RANGE, one for each image."""

_TEACHERS_OWN = (
    "timesteps",
    "schedule",
    "beta_start",
    "beta_end",
    "zero_terminal",
    "prediction",
    "widths",
    "blocks",
    "attention",
)


@dataclass(frozen=True)
class Config:
    """Rounds, loss and optimiser, and what the teacher must be; the defaults are tuned for 8x8 digits."""

    first: int = 16  # steps of the first student; its teacher's DDIM takes twice as many
    last: int = 1  # steps of the last student; first is this times a power of two
    weighting: Literal["snr_plus_one", "truncated_snr"] = "snr_plus_one"  # of the square error of x_0; their section 4
    clip: bool = True  # clamp the teacher's predicted x_0 to the pixel range
    timesteps: int = 1000  # from here on as the teacher has it
    schedule: Literal["linear", "quadratic", "sigmoid", "cosine"] = "cosine"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal: bool = False
    prediction: Literal["v", "x0"] = "v"
    widths: tuple[int, ...] = (24, 48)
    blocks: int = 1
    attention: bool = False
    dropout: float = 0.0  # the students' own
    lr: float = 2e-3  # at the start of each round
    warmup: float = 0.05  # fraction of each round
    training: Training = Training(batch_size=32, ema_decay=0.0)

    def __post_init__(self) -> None:
        ratio = self.first // max(self.last, 1)
        if self.last < 1 or ratio < 1 or self.last * ratio != self.first or ratio & (ratio - 1):
            raise UserError(
                "progressive_distillation: expected first = last times a power of two and last at least 1, "
                f"got first {self.first} and last {self.last}"
            )
        if 2 * self.first > self.timesteps:
            raise UserError(
                f"progressive_distillation.first: expected at most half of the {self.timesteps} timesteps, "
                f"got {self.first}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"progressive_distillation: expected a dropout in [0, 1), got {self.dropout}")

    @property
    def students(self) -> tuple[int, ...]:
        """Steps of each student, the first student first."""
        return tuple(self.first >> i for i in range((self.first // self.last).bit_length()))


class Students(nn.Module):
    """Networks by the number of steps that they sample in; the first is the teacher and does not learn."""

    def __init__(self, networks: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({str(steps): network for steps, network in networks.items()})
        next(iter(self.networks.values())).requires_grad_(False)

    def forward(self, x_t: Tensor, t: Tensor, steps: int) -> Tensor:
        """x_t (B, C, H, W) and times (B,) or (1,) in 0 .. TIME_RANGE to the answer of one of them."""
        out: Tensor = self.networks[str(steps)](x_t, t)
        return out

    def copy(self, source: int, to: int) -> None:
        """Give one network the weights of another."""
        self.networks[str(to)].load_state_dict(self.networks[str(source)].state_dict())


class ProgressiveDistillation(GenerativeModel, Distils):
    """U-Nets that each do in N steps what their teacher does in 2 N."""

    network: ClassVar[str | None] = "students"
    draw_keys: ClassVar[tuple[str, ...]] = ("steps", "clip")

    round: Tensor  # 0-d int64: which student learns; -1 before there is a teacher

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.process = make_process(
            config.schedule, config.timesteps, config.beta_start, config.beta_end, config.zero_terminal
        )
        self.numbers = (2 * config.first, *config.students)
        self.students = Students({steps: self._unet() for steps in self.numbers})
        self.register_buffer("round", torch.tensor(-1))

    def _unet(self) -> UNet:
        config, channels = self.config, self.shape.channels
        return UNet(channels, channels, config.widths, config.blocks, config.attention, config.dropout)

    # The teacher

    @classmethod
    def teacher(cls, config: Config) -> tuple[str, Mapping[str, Any]]:
        """A DDPM of the same process, prediction and network."""
        return "ddpm", {name: getattr(config, name) for name in _TEACHERS_OWN}

    def learn_from(self, teacher: GenerativeModel) -> None:
        """Take the teacher's weights.

        Raises:
            UserError: if it is no diffusion model of the config's process, prediction and network.
        """
        name, needs = self.teacher(self.config)
        if not isinstance(teacher, GaussianDiffusion):
            raise UserError(
                f"progressive_distillation: expected a {name!r} to learn from, got {type(teacher).__name__}"
            )
        for key, value in needs.items():
            if getattr(teacher.config, key, None) != value:
                got = getattr(teacher.config, key, None)
                raise UserError(f"progressive_distillation.{key}: expected the teacher's, {got!r}, got {value!r}")
        self.students.networks[str(self.numbers[0])].load_state_dict(teacher.unet.state_dict())
        self._enter(0)

    def _enter(self, wanted: int) -> int:
        """Go on to this round, each student beginning as its teacher; the steps of the one that learns."""
        if int(self.round) < 0 and wanted > 0:
            raise UserError("progressive_distillation: no teacher yet; call learn_from(teacher) before training")
        for i in range(int(self.round) + 1, wanted + 1):
            self.students.copy(self.numbers[i], self.numbers[i + 1])
            self.round.fill_(i)
        return self.numbers[int(self.round) + 1]

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """One; the learning rate falls to 0 in each round, after which the next student begins."""
        rounds = len(self.config.students)
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="linear", rounds=rounds)
        return (Phase("distil", ("students",), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """The square error of x_0 against what makes one step of DDIM equal the teacher's two, weighted by noise."""
        if int(self.round) < 0:
            raise UserError("progressive_distillation: no teacher yet; call learn_from(teacher) before training")
        rounds = len(self.config.students)
        steps = self._enter(max(int(self.round), min(int(context.fraction * rounds), rounds - 1)))
        x_0 = to_signed(batch.images, self.shape.levels)
        grid = Grid(self.denoiser(steps), steps, x_0.device)
        place = context.strata(len(x_0))
        step = (place * steps).long().clamp(max=steps - 1) + 1
        x_t = grid.diffuse(x_0, context.normal(*x_0.shape), 2 * step)
        self.students.networks[str(2 * steps)].eval()  # its dropout would make the target random
        with torch.no_grad():
            wanted = grid.target(x_t, step, partial(self.students, steps=2 * steps), self.config.clip)
        error = grid.x_0(x_t, 2 * step, partial(self.students, steps=steps)) - wanted
        return Losses((grid.weight(2 * step, self.config.weighting) * error.square()).mean())

    def finish(self, images: Tensor, noise: Noise) -> None:
        """Where the budget ended before the last round began, its student is its teacher's copy."""
        self._enter(len(self.config.students) - 1)

    # Images

    def denoiser(self, steps: int) -> Denoiser:
        """One student as the samplers see it."""

        def answer(x_t: Tensor, t: float) -> Tensor:
            time = torch.full((1,), t * (TIME_RANGE / self.process.timesteps), device=x_t.device, dtype=x_t.dtype)
            out: Tensor = self.students(x_t, time, steps)
            return out

        return Denoiser(answer, self.process, self.config.prediction)

    @classmethod
    def check_draw(cls, config: Config, draw: Draw) -> None:
        """Whether a student of so many steps was trained."""
        super().check_draw(config, draw)
        if draw.options:
            raise UserError(f"draw.options: {draw.sampler!r} has none, got {', '.join(sorted(draw.options))}")
        if draw.steps is not None and draw.steps not in config.students:
            known = ", ".join(map(str, config.students))
            raise UserError(f"steps: expected one of {known} (the students of this model), got {draw.steps}")

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """From x_T ~ N(0, I) by DDIM in the student's own steps; the last student's where the draw names none."""
        self.check_draw(self.config, draw)
        steps = draw.steps or self.config.last
        x_0 = ddim_in(steps, noise.normal("x_T", n, self.shape.chw), self.denoiser(steps), draw.clip)
        return from_signed(x_0, self.shape.levels)


def ddim_in(steps: int, x: Tensor, denoiser: Denoiser, clip: bool) -> Tensor:
    """x_0 from x_T (B, C, H, W) by deterministic DDIM at the times 1, 1 - 1/N, ..., 1/N of the chain."""
    total = denoiser.process.timesteps
    path = [total * i / steps - 1 for i in range(steps, -1, -1)]
    moves = [denoiser.process.transition(t, s) for t, s in itertools.pairwise(path)]
    return run_steps(x, denoiser, [linear_step(m, denoiser.reading(m.t), 0.0, 0.0) for m in moves], iter(()), clip)


class Grid:
    """The times at j / 2N of the chain, j = 0 .. 2N, and what can be done at a j of its own for each image.

    Indices j are int64 (B,), images (B, C, H, W); networks are called with x_t and times in 0 .. TIME_RANGE.
    """

    def __init__(self, chain: Denoiser, steps: int, device: torch.device) -> None:
        process = chain.process
        times = [process.timesteps * j / (2 * steps) - 1 for j in range(2 * steps + 1)]
        readings = [chain.reading(t) for t in times[1:]]
        rows = [
            [process.signal(t) for t in times],
            [process.sigma(t) for t in times],
            [math.nan, *(read.x0_from_x for read in readings)],
            [math.nan, *(read.x0_from_out for read in readings)],
        ]
        tables = torch.tensor(rows, dtype=torch.float64).to(device).view(4, -1, 1, 1, 1)
        self.signal: Tensor = tables[0]
        self.sigma: Tensor = tables[1]
        self.from_x: Tensor = tables[2]
        self.from_out: Tensor = tables[3]
        self.time = torch.tensor(times, device=device) * (TIME_RANGE / process.timesteps)

    def diffuse(self, x_0: Tensor, eps: Tensor, j: Tensor) -> Tensor:
        """A draw of q(x_j | x_0)."""
        return self._at(self.signal, j, x_0) * x_0 + self._at(self.sigma, j, x_0) * eps

    def x_0(self, x_j: Tensor, j: Tensor, network: Network) -> Tensor:
        """The predicted x_0 at j >= 1."""
        out = network(x_j, self.time[j].to(x_j.dtype))
        return self._at(self.from_x, j, x_j) * x_j + self._at(self.from_out, j, x_j) * out

    def ddim(self, x_j: Tensor, x_0: Tensor, j: Tensor) -> Tensor:
        """x_{j-1} from x_j and x_0 by deterministic DDIM (their eq. 8)."""
        ratio = self._at(self.sigma, j - 1, x_j) / self._at(self.sigma, j, x_j)
        return self._at(self.signal, j - 1, x_j) * x_0 + ratio * (x_j - self._at(self.signal, j, x_j) * x_0)

    def target(self, x_t: Tensor, step: Tensor, teacher: Network, clip: bool) -> Tensor:
        """The x_0 whose one DDIM step from j = 2 step to 2 step - 2 ends where the teacher's two end (appendix G)."""
        j, x = 2 * step, x_t
        for k in (j, j - 1):
            x_0 = self.x_0(x, k, teacher)
            x = self.ddim(x, x_0.clamp(-1, 1) if clip else x_0, k)
        ratio = self._at(self.sigma, j - 2, x) / self._at(self.sigma, j, x)
        return (x - ratio * x_t) / (self._at(self.signal, j - 2, x) - ratio * self._at(self.signal, j, x))

    def weight(self, j: Tensor, weighting: str) -> Tensor:
        """SNR + 1, which makes the error of x_0 that of v, or max(SNR, 1); (B, 1, 1, 1) float32."""
        signal, noise = self.signal[j].square(), self.sigma[j].square()
        weight = 1 / noise if weighting == "snr_plus_one" else (signal / noise).clamp(min=1)
        return weight.float()

    def _at(self, table: Tensor, j: Tensor, like: Tensor) -> Tensor:
        return table[j].to(like.dtype)


MODEL = Model("Progressive distillation", "Salimans and Ho 2022, arXiv:2202.00512", Config, ProgressiveDistillation)
