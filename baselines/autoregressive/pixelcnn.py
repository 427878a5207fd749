"""PixelCNN: exact likelihood by masked convolutions (van den Oord et al. 2016, arXiv:1601.06759)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.contract import (
    Batch,
    Context,
    Draw,
    GenerativeModel,
    Given,
    HasLikelihood,
    ImageShape,
    Losses,
    Model,
    Nats,
    Noise,
    OptimiserConfig,
    Phase,
    Training,
    Trains,
)
from baselines.data.likelihood import to_signed
from baselines.nets.masked import MaskedConv2d, RasterCache
from baselines.types import Kind


@dataclass(frozen=True)
class Config:
    width: int = 64
    blocks: int = 5
    kernel: int = 7
    inner_kernel: int = 3
    gated: bool = False
    one_hot: bool = True
    position: bool = True
    dropout: float = 0.3
    lr: float = 2e-3
    training: Training = Training(batch_size=64)


class Block(nn.Module):
    def __init__(self, width: int, config: Config, colours: int) -> None:
        super().__init__()
        self.gated = config.gated
        half = width // 2
        self.reduce = MaskedConv2d(width, half, 1, "B", colours)
        self.causal = MaskedConv2d(half, width if config.gated else half, config.inner_kernel, "B", colours)
        self.expand = MaskedConv2d(half, width, 1, "B", colours)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, cache: RasterCache | None = None) -> Tensor:
        inner = F.relu(self.reduce(F.relu(h)))
        inner = self.causal(inner, cache)
        if self.gated:
            a, b = inner.unflatten(1, (-1, 2)).unbind(2)
            inner = torch.tanh(a) * torch.sigmoid(b)
        else:
            inner = F.relu(inner)
        return h + self.expand(self.dropout(inner))


class Net(nn.Module):
    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        C = shape.channels
        self.shape, self.config = shape, config
        width = config.width
        self.first = MaskedConv2d(C * (shape.levels if config.one_hot else 1), width, config.kernel, "A", C)
        self.position = nn.Parameter(torch.zeros(width, shape.height, shape.width)) if config.position else None
        self.blocks = nn.ModuleList(Block(width, config, C) for _ in range(config.blocks))
        self.head = MaskedConv2d(width, width, 1, "B", C)
        self.out = MaskedConv2d(width, C * shape.levels, 1, "B", C)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: RasterCache | None = None) -> Tensor:
        if self.config.one_hot:
            h = F.one_hot(x.long(), self.shape.levels).to(self.out.weight.dtype).permute(0, 1, 4, 2, 3).flatten(1, 2)
        else:
            h = to_signed(x, self.shape.levels).to(self.out.weight.dtype)
        h = self.first(h, cache)
        if self.position is not None:
            h = h + self.position[:, : h.shape[-2], : h.shape[-1]]
        for b in self.blocks:
            h = b(h, cache)
        h = F.relu(self.head(F.relu(h)))
        return self.out(self.dropout(h)).unflatten(1, (self.shape.channels, self.shape.levels))
