"""RealNVP: a normalising flow of masked affine couplings in a multi-scale order (Dinh et al. 2017, arXiv:1605.08803).

Logit preprocessing (sec. 4.1); per scale three checkerboard couplings, squeeze, three channel-wise couplings, half
of the channels factored out; four checkerboard couplings at the last scale (sec. 3.6); residual networks for s and
t. Departures for small data: no batch norm (its statistics leak between images) and no weight norm, but one
elementwise layer that standardises the first batch; a learned bias for each position in the networks, dropout of whole
features, and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import ImageShape, Model, Training
from baselines.errors import UserError
from baselines.flows.logit_flow import LogitFlow
from baselines.nets.couplings import (
    AffineCoupling,
    Chain,
    Elementwise,
    FactorOut,
    Flatten,
    Flow,
    SplitCoupling,
    Squeeze,
    checkerboard,
)
from baselines.nets.dequantiser import Dequantisation, DequantiserConfig


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    scales: int = 3  # at most: a scale with an odd side cannot be squeezed and is the last
    couplings: int = 3  # with checkerboard masks, and as many with channel masks, at every scale but the last
    last_couplings: int = 4  # with checkerboard masks, at the last scale
    width: int = 32  # features of the networks for s and t
    blocks: int = 1  # residual blocks of each
    alpha: float = 0.01  # images are squeezed into [alpha, 1 - alpha] before the logit
    dropout: float = 0.1  # of features, in each block and before the last layer of each network
    dequantisation: Dequantisation = "uniform"
    dequantiser: DequantiserConfig = DequantiserConfig()
    lr: float = 4e-3
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        if self.scales < 1 or self.couplings < 2 or self.last_couplings < 2:
            raise UserError(
                "realnvp: expected scales >= 1 and at least two couplings of a kind, so that every dimension "
                f"is changed, got {self.scales}, {self.couplings}, {self.last_couplings}"
            )
        if self.width < 1 or self.blocks < 0 or not 0 <= self.dropout < 1:
            raise UserError(
                "realnvp: expected width >= 1, blocks >= 0 and dropout in [0, 1), "
                f"got {self.width}, {self.blocks}, {self.dropout}"
            )
        if not 0 < self.alpha < 0.5:
            raise UserError(f"realnvp: expected alpha between 0 and 0.5, got {self.alpha}")


class RealNvp(LogitFlow):
    """A `LogitFlow` of masked couplings after one elementwise layer."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        flow = Chain(Elementwise(*shape.chw), multi_scale(*shape.chw, config.scales, config))
        super().__init__(shape, config, flow)


def multi_scale(channels: int, height: int, width: int, scales: int, config: Config) -> Flow:
    """The flow from (B, C, H, W) to flat (B, CHW), scale by scale."""
    size = (channels, height, width)

    def checkerboards(number: int) -> list[Flow]:
        networks = (ScaleAndShift(channels, 2 * channels, height, width, config) for _ in range(number))
        return [AffineCoupling(network, checkerboard(*size, k % 2)) for k, network in enumerate(networks)]

    if scales == 1 or height % 2 or width % 2:
        return Chain(*checkerboards(config.last_couplings), Flatten(*size))
    before = checkerboards(config.couplings)
    channels, height, width = 4 * channels, height // 2, width // 2
    networks = (ScaleAndShift(channels // 2, channels, height, width, config) for _ in range(config.couplings))
    after = [SplitCoupling(network, channels, keep_first=k % 2 == 0) for k, network in enumerate(networks)]
    rest = multi_scale(channels // 2, height, width, scales - 1, config)
    return Chain(*before, Squeeze(), *after, FactorOut(rest, channels, height, width))


class ScaleAndShift(nn.Module):
    """Residual network for raw and t of a coupling; its last layer is 0 at first, so that the coupling does nothing."""

    def __init__(self, into: int, out: int, height: int, width: int, config: Config) -> None:
        super().__init__()
        features = config.width
        self.first = nn.Conv2d(into, features, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(features, height, width))
        self.blocks = nn.ModuleList(Block(features, config.dropout) for _ in range(config.blocks))
        self.dropout = nn.Dropout2d(config.dropout)
        self.last = nn.Conv2d(features, out, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, into, H, W) to (B, out, H, W)."""
        h = self.first(x) + self.position
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.last(self.dropout(F.relu(h)))
        return out


class Block(nn.Module):
    """Residual block of two 3x3 convolutions, each after a ReLU."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.dropout = nn.Dropout2d(dropout)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, features, H, W) to the same."""
        inner = F.relu(self.first(F.relu(h)))
        out: Tensor = h + self.second(self.dropout(inner))
        return out


MODEL = Model("RealNVP", "Dinh et al. 2017, arXiv:1605.08803", Config, RealNvp)
