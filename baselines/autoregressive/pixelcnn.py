"""PixelCNN: exact likelihood by masked convolutions (van den Oord et al. 2016, arXiv:1601.06759, sec. 3.4-3.5).

As in its Table 1: a convolution of mask A, residual blocks 1x1, 3x3, 1x1 of mask B (Fig. 5), two 1x1 layers, and a
softmax over the levels of each colour in turn. Such masks leave a blind spot to the right above each pixel
(arXiv:1606.05328, Fig. 1), which this model keeps. Departures for small data: SiLU in place of ReLU, learned biases
for each position, dropout of whole features, and averaged weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregression import Autoregressive, Known
from baselines.autoregressive.canvas import Canvas
from baselines.contract import Given, ImageShape, Model, Training
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.nets.masked import MaskedConv2d
from baselines.nets.raster import At, Memory, fronts

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "relu": F.relu}


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    width: int = 96  # features, 2h in the paper; rounded up to an even share for each colour
    blocks: int = 5
    first_kernel: int = 7  # of the convolution with mask A
    kernel: int = 3  # of the blocks
    activation: Literal["silu", "relu"] = "silu"  # relu is the paper's
    positions: bool = True  # learned biases for each position
    dropout: float = 0.25  # of features, before the last convolution of each block and before the logits
    lr: float = 8e-3
    warmup: float = 0.05  # fraction of the budget
    training: Training = Training(batch_size=64)

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 0:
            raise UserError(f"pixelcnn: expected width >= 1 and blocks >= 0, got {self.width} and {self.blocks}")
        if self.first_kernel < 3 or not self.first_kernel % 2 or self.kernel < 1 or not self.kernel % 2:
            raise UserError(
                f"pixelcnn: expected odd first_kernel >= 3 and kernel >= 1, got {self.first_kernel} and {self.kernel}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"pixelcnn: expected dropout in [0, 1), got {self.dropout}")


class PixelCnn(Autoregressive):
    """log P(x) = sum_i log P(x_i | x_<i) over pixels in raster order, colours R, G, B within a pixel."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.net = Conditionals(shape, config)

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """Softmax over the levels of each pixel and colour."""
        log_p: Tensor = self.net(x).log_softmax(1)
        return log_p

    @torch.no_grad()
    def draw(self, uniform: Tensor, known: Known | None = None, given: Given | None = None) -> Tensor:
        """One pass of the network in all, a front of pixels at a time.

        A layer reaches right in the rows above only, so a row may follow the one above it `reach + 1` columns behind,
        however deep the network is: W + (reach + 1)(H - 1) calls for each colour.
        """
        channels, height, width = self.shape.chw
        canvas, memory = Canvas(uniform, known), Memory(len(uniform), height, width)
        for region in fronts(height, width, self.net.reach + 1):
            pixels, at = canvas.pixels(region), At(memory, region, region)
            for colour in range(channels):
                pixels.draw(colour, self.net(pixels.values, at)[:, :, colour])
                self.net.tell(pixels.values, at)
            canvas.keep(region, pixels)
        return canvas.images


class Conditionals(nn.Module):
    """The logits of P(x_i | x_<i) for every pixel and colour at once."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        colours = shape.channels
        half = -(-config.width // (2 * colours)) * colours  # h, a multiple of the colours
        width = 2 * half
        places = (shape.height, shape.width) if config.positions else None
        self.first = MaskedConv2d(colours, width, config.first_kernel, "A", colours, places)
        self.blocks = nn.ModuleList(Block(half, shape, config) for _ in range(config.blocks))
        self.activation = _ACTIVATIONS[config.activation]
        self.hidden = MaskedConv2d(width, width, 1, "B", colours)
        self.dropout = nn.Dropout2d(config.dropout)
        self.logits = MaskedConv2d(width, colours * shape.levels, 1, "B", colours)

    def forward(self, x: Tensor, at: At | None = None) -> Tensor:
        """uint8 (B, C, H, W) to logits (B, levels, C, H, W); or, from what it was told, (B * pixels, levels, C)."""
        h = self.first(self._scaled(x)) if at is None else self.first(None, at._replace(source=None))
        for block in self.blocks:
            h = block(h, at)
        h = self.activation(self.hidden(self.activation(h), at))
        if at is None:
            h = self.dropout(h)
        out = self.logits(h, at)
        return out.view(len(out), self.shape.channels, self.shape.levels, *out.shape[2:]).transpose(1, 2)

    @property
    def reach(self) -> int:
        """How many columns to the right the widest layer sees."""
        return max(layer.reach for layer in self.modules() if isinstance(layer, MaskedConv2d))

    def tell(self, values: Tensor, at: At) -> None:
        """The values uint8 (B * pixels, C) of a region, as far as its colours are drawn."""
        at.memory.feed(self.first, self._scaled(values), at.target)

    def _scaled(self, x: Tensor) -> Tensor:
        return to_signed(x if x.is_floating_point() else x.to(self.first.weight.dtype), self.shape.levels)


class Block(nn.Module):
    """Residual block: 2h -> h by 1x1, h -> h by the kernel, h -> 2h by 1x1, all of mask B (Fig. 5, left)."""

    def __init__(self, half: int, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.narrow = MaskedConv2d(2 * half, half, 1, "B", shape.channels)
        places = (shape.height, shape.width) if config.positions else None
        self.causal = MaskedConv2d(half, half, config.kernel, "B", shape.channels, places)
        self.dropout = nn.Dropout2d(config.dropout)
        self.widen = MaskedConv2d(half, 2 * half, 1, "B", shape.channels)

    def forward(self, h: Tensor, at: At | None = None) -> Tensor:
        """(B, 2h, H, W) to the same; or a region (B * pixels, 2h)."""
        inner = self.causal(self.activation(self.narrow(self.activation(h), at)), at)
        inner = self.activation(inner)
        if at is None:
            inner = self.dropout(inner)
        out: Tensor = h + self.widen(inner, at)
        return out


MODEL = Model("PixelCNN", "van den Oord et al. 2016, arXiv:1601.06759", Config, PixelCnn)
