"""Glow: a flow of actnorm, invertible 1x1 convolution and affine coupling (Kingma and Dhariwal 2018, arXiv:1807.03039).

At each scale squeeze, then `steps` of actnorm (sec. 3.1), 1x1 convolution by its LU decomposition (sec. 3.2) and affine
coupling of one half of the channels by the other (sec. 3.3), then half of the channels are split off with a prior that
the rest determines; networks of 3x3, 1x1 and 3x3 convolutions with a last layer of zeros. An image with an odd side is
not squeezed (of a single channel the couplings then take RealNVP's checkerboard masks), and a scale with one is the
last. Departures for small data: logit preprocessing and one elementwise layer that standardises the first batch pixel
by pixel, exp(scale tanh(raw)) in place of exp(raw), a learned bias for each position in the networks, dropout of whole
features, and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import Draw, ImageShape, Model, Noise, Training
from baselines.errors import UserError
from baselines.flows.logit_flow import LogitFlow
from baselines.nets.couplings import (
    AffineCoupling,
    Chain,
    Elementwise,
    Flatten,
    Flow,
    SplitCoupling,
    Squeeze,
    checkerboard,
)
from baselines.nets.dequantiser import Dequantisation, DequantiserConfig
from baselines.nets.glow_layers import ActNorm, InvertibleConv, SplitPrior


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    scales: int = 2  # L, at most: a scale with an odd side is the last
    steps: int = 8  # K, of actnorm, 1x1 convolution and coupling at every scale
    width: int = 48  # features of the couplings' networks
    alpha: float = 0.01  # images are squeezed into [alpha, 1 - alpha] before the logit
    dropout: float = 0.35  # of features, before the last layer of each network
    dequantisation: Dequantisation = "uniform"
    dequantiser: DequantiserConfig = DequantiserConfig()
    lr: float = 4e-3
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        if self.scales < 1 or self.steps < 2 or self.width < 1:
            raise UserError(
                "glow: expected scales >= 1, steps >= 2, so that every dimension is changed, and width >= 1, "
                f"got {self.scales}, {self.steps}, {self.width}"
            )
        if not 0 <= self.dropout < 1 or not 0 < self.alpha < 0.5:
            raise UserError(
                f"glow: expected dropout in [0, 1) and alpha between 0 and 0.5, got {self.dropout} and {self.alpha}"
            )


class Glow(LogitFlow):
    """A `LogitFlow` whose draws may have a temperature."""

    draw_keys: ClassVar[tuple[str, ...]] = ("options",)

    def __init__(self, shape: ImageShape, config: Config) -> None:
        flow = Chain(Elementwise(*shape.chw), multi_scale(*shape.chw, config.scales, config))
        super().__init__(shape, config, flow)

    @classmethod
    def check_draw(cls, config: Any, draw: Draw) -> None:
        """Native, with the option `temperature` (a positive number) or none."""
        super().check_draw(config, draw)
        told = dict(draw.options)
        given = told.pop("temperature", 1.0)
        if told or isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
            raise UserError(f"options: expected a positive temperature or none, got {dict(draw.options)}")

    def prior(self, n: int, draw: Draw, noise: Noise) -> Tensor:
        """z ~ N(0, T^2 I): every Gaussian of the prior, split-off ones too, is narrowed by T (sec. 6)."""
        temperature = draw.options.get("temperature", 1.0)
        assert isinstance(temperature, int | float)
        return super().prior(n, draw, noise) * temperature


def multi_scale(channels: int, height: int, width: int, scales: int, config: Config) -> Flow:
    """The flow from (B, C, H, W) to flat (B, CHW), scale by scale (fig. 2)."""
    squeezable = height % 2 == 0 and width % 2 == 0
    before: list[Flow] = [Squeeze()] if squeezable else []
    if squeezable:
        channels, height, width = 4 * channels, height // 2, width // 2
    size = (channels, height, width)
    steps = [flow for k in range(config.steps) for flow in step(*size, k % 2, config)]
    if scales == 1 or height % 2 or width % 2:
        return Chain(*before, *steps, Elementwise(*size), Flatten(*size))
    rest = multi_scale(channels // 2, height, width, scales - 1, config)
    prior = Network(channels // 2, channels, height, width, config, linear=True)
    return Chain(*before, *steps, SplitPrior(rest, prior, *size))


def step(channels: int, height: int, width: int, parity: int, config: Config) -> tuple[Flow, Flow, Flow]:
    """Actnorm, 1x1 convolution, coupling (fig. 2a)."""
    coupling: Flow
    if channels == 1:
        network = Network(1, 2, height, width, config)
        coupling = AffineCoupling(network, checkerboard(1, height, width, parity))
    else:
        free = channels // 2
        coupling = SplitCoupling(Network(channels - free, 2 * free, height, width, config), channels)
    return ActNorm(channels), InvertibleConv(channels), coupling


class Network(nn.Module):
    """Convolutions 3x3, 1x1, 3x3 with ReLU between, or one 3x3 alone; the last is 0 at first, so the output is too."""

    def __init__(self, into: int, out: int, height: int, width: int, config: Config, linear: bool = False) -> None:
        super().__init__()
        features = into if linear else config.width
        self.hidden = None
        if not linear:
            self.first = nn.Conv2d(into, features, 3, padding=1)
            self.position = nn.Parameter(torch.zeros(features, height, width))
            self.hidden = nn.Conv2d(features, features, 1)
            self.dropout = nn.Dropout2d(config.dropout)
        self.last = nn.Conv2d(features, out, 3, padding=1)
        self.bias = nn.Parameter(torch.zeros(out, height, width))  # of each position
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, into, H, W) to (B, out, H, W)."""
        if self.hidden is not None:
            x = F.relu(self.first(x) + self.position)
            x = self.dropout(F.relu(self.hidden(x)))
        out: Tensor = self.last(x) + self.bias
        return out


MODEL = Model("Glow", "Kingma and Dhariwal 2018, arXiv:1807.03039", Config, Glow)
