"""Flow matching: learns the velocity of straight paths between noise and data (Lipman et al. 2022, arXiv:2210.02747).

The conditional paths are their eq. 20 with sigma_min = 0, which are those of rectified flow (Liu et al. 2022,
arXiv:2209.03003, eq. 1) before any reflow. Time runs as elsewhere in this family, against both papers: t = 0 is the
data and t = 1 the noise, x_t = (1 - t) x_0 + t eps, and the velocity is dx_t/dt = eps - x_0. A batch's times are
stratified over [0, 1), which leaves the loss unbiased and less noisy. It has no likelihood here: that of its ODE is
the instantaneous change of variables, as of any other ODE of this family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import (
    Batch,
    Context,
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
    Trains,
)
from baselines.data.likelihood import from_signed, to_signed
from baselines.diffusion.velocity import SOLVERS
from baselines.errors import UserError
from baselines.nets.unet import TIME_RANGE, UNet

_NATIVE = Draw("midpoint", 10)  # what `native` stands for; 20 network calls
_MOST_STEPS = 1000


@dataclass(frozen=True)
class Config:
    """Network, times and optimiser; the defaults are tuned for 8x8 digits."""

    times: Literal["uniform", "logit_normal"] = (
        "logit_normal"  # of the loss; Esser et al. 2024, arXiv:2403.03206, sec. 3.1
    )
    times_mean: float = 0.0  # of logit(t), where they are logit-normal
    times_std: float = 1.0
    widths: tuple[int, ...] = (24, 48)  # channels of each resolution of the U-Net
    blocks: int = 1  # residual blocks at each, on the way down and on the way up
    attention: bool = False
    dropout: float = 0.0
    lr: float = 4e-3
    warmup: float = 0.02  # fraction of the budget
    training: Training = Training(batch_size=32, ema_decay=0.999)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 2 or self.blocks < 1:
            raise UserError(f"flow_matching: expected widths >= 2 and blocks >= 1, got {self.widths} and {self.blocks}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"flow_matching: expected a dropout in [0, 1), got {self.dropout}")
        if self.times_std <= 0:
            raise UserError(f"flow_matching.times_std: expected more than 0, got {self.times_std}")


class FlowMatching(GenerativeModel, Trains):
    """A U-Net that is shown x_t and t, and answers with the velocity."""

    samplers: ClassVar[tuple[str, ...]] = ("native", *SOLVERS)
    averaged: ClassVar[tuple[str, ...]] = ("unet",)
    network: ClassVar[str | None] = "unet"
    draw_keys: ClassVar[tuple[str, ...]] = ("steps",)

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        channels = shape.channels
        self.unet = UNet(channels, channels, config.widths, config.blocks, config.attention, config.dropout)

    # Training

    def phases(self) -> tuple[Phase, ...]:
        """One: conditional flow matching."""
        optimiser = OptimiserConfig(lr=self.config.lr, warmup=self.config.warmup, decay="cosine")
        return (Phase("flow", ("unet",), self.loss, optimiser),)

    def loss(self, batch: Batch, context: Context) -> Losses:
        """E |v(x_t, t) - (eps - x_0)|^2 a pixel (Lipman et al. 2022, eq. 23)."""
        x_0 = to_signed(batch.images, self.shape.levels)
        t = self.draw_times(len(x_0), context)
        eps = context.normal(*x_0.shape)
        x_t = torch.lerp(x_0, eps, t.view(-1, 1, 1, 1))
        return Losses(F.mse_loss(self.unet(x_t, t * TIME_RANGE), eps - x_0))

    def draw_times(self, n: int, context: Context) -> Tensor:
        """n times (n,) in [0, 1], one in each of n parts of equal probability."""
        place = context.strata(n)
        if self.config.times == "uniform":
            return place
        return torch.sigmoid(self.config.times_mean + self.config.times_std * torch.special.ndtri(place))

    # Images

    def velocity(self, x_t: Tensor, t: float) -> Tensor:
        """E[eps - x_0 | x_t] as predicted, (B, C, H, W), all images at one time t in [0, 1]."""
        time = torch.full((1,), t * TIME_RANGE, device=x_t.device, dtype=x_t.dtype)
        out: Tensor = self.unet(x_t, time)
        return out

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Any S from 1 to 1000; `native` has its own."""
        super().check_draw(config, draw)
        if draw.options:
            raise UserError(f"draw.options: {draw.sampler!r} has none, got {', '.join(sorted(draw.options))}")
        if draw.steps is not None and not 1 <= draw.steps <= _MOST_STEPS:
            raise UserError(f"steps: expected 1 to {_MOST_STEPS}, got {draw.steps}")

    @torch.no_grad()
    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """From x_1 ~ N(0, I) by the draw's solver, 10 steps where it names none; `native` is the midpoint rule."""
        self.check_draw(self.config, draw)
        solver = SOLVERS[_NATIVE.sampler if draw.sampler == "native" else draw.sampler]
        x_0 = solver.run(noise.normal("x_1", n, self.shape.chw), self.velocity, draw.steps or _NATIVE.steps or 1)
        return from_signed(x_0, self.shape.levels)


MODEL = Model("Flow matching", "Lipman et al. 2022, arXiv:2210.02747", Config, FlowMatching)
