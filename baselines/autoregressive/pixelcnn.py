"""PixelCNN: exact likelihood by masked convolutions (van den Oord et al. 2016, arXiv:1601.06759, sec. 3.4-3.5).

As in its Table 1: a convolution of mask A, residual blocks 1x1, 3x3, 1x1 of mask B (Fig. 5), two 1x1 layers, and a
softmax over the levels of each colour in turn. Such masks leave a blind spot to the right above each pixel
(arXiv:1606.05328, Fig. 1), which this model keeps. Departures for small data: SiLU in place of ReLU, learned biases
for each position, dropout of whole features, and averaged weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.autoregression import Autoregressive, Known, invert_cdf
from baselines.contract import Given, ImageShape, Model, Training
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.nets.masked import MaskedConv2d, PositionBias, RasterCache

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}


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
        """What earlier pixels have contributed is cached, so an image costs about one pass of the whole network."""
        channels, height, width = self.shape.chw
        x = torch.zeros(uniform.shape, dtype=torch.uint8, device=uniform.device)
        cache = RasterCache(height, width)
        for place in range(height * width):
            cache.row, cache.column = row, column = divmod(place, width)
            pixel = x[:, :, row, column, None, None]
            for colour in range(channels):
                logits = self.net(pixel, cache)[:, :, colour, 0, 0]
                if known is not None and place * channels + colour < known.dims:
                    pixel[:, colour, 0, 0] = known.images[:, colour, row, column]
                else:
                    pixel[:, colour, 0, 0] = invert_cdf(logits, uniform[:, colour, row, column])
            self.net.remember(pixel, cache)
        return x


class Conditionals(nn.Module):
    """The logits of P(x_i | x_<i) for every pixel and colour at once."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        colours = shape.channels
        half = -(-config.width // (2 * colours)) * colours  # h, a multiple of the colours
        width = 2 * half
        self.first = MaskedConv2d(colours, width, config.first_kernel, "A", colours)
        self.position = PositionBias(width, shape.height, shape.width) if config.positions else None
        self.blocks = nn.ModuleList(Block(half, shape, config) for _ in range(config.blocks))
        self.activation = _ACTIVATIONS[config.activation]()
        self.hidden = MaskedConv2d(width, width, 1, "B", colours)
        self.dropout = nn.Dropout2d(config.dropout)
        self.logits = MaskedConv2d(width, colours * shape.levels, 1, "B", colours)

    def forward(self, x: Tensor, cache: RasterCache | None = None) -> Tensor:
        """uint8 (B, C, H, W) to logits (B, levels, C, H, W); with a cache, for its pixel alone (H = W = 1)."""
        h = self.first(self._scaled(x), cache)
        if self.position is not None:
            h = self.position(h, cache)
        for block in self.blocks:
            h = block(h, cache)
        h = self.activation(self.hidden(self.activation(h)))
        logits: Tensor = self.logits(self.dropout(h))
        batch, _, height, width = logits.shape
        return logits.view(batch, self.shape.channels, self.shape.levels, height, width).transpose(1, 2)

    def remember(self, pixel: Tensor, cache: RasterCache) -> None:
        """Tell the cache the value uint8 (B, C, 1, 1) of a pixel, which no feature has seen while it was drawn."""
        cache.feed(self.first, self._scaled(pixel))

    def _scaled(self, x: Tensor) -> Tensor:
        return to_signed(x, self.shape.levels).to(self.first.weight.dtype)


class Block(nn.Module):
    """Residual block: 2h -> h by 1x1, h -> h by the kernel, h -> 2h by 1x1, all of mask B (Fig. 5, left)."""

    def __init__(self, half: int, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]()
        self.narrow = MaskedConv2d(2 * half, half, 1, "B", shape.channels)
        self.causal = MaskedConv2d(half, half, config.kernel, "B", shape.channels)
        self.position = PositionBias(half, shape.height, shape.width) if config.positions else None
        self.dropout = nn.Dropout2d(config.dropout)
        self.widen = MaskedConv2d(half, 2 * half, 1, "B", shape.channels)

    def forward(self, h: Tensor, cache: RasterCache | None = None) -> Tensor:
        """(B, 2h, H, W) to the same; with a cache, one pixel."""
        inner = self.causal(self.activation(self.narrow(self.activation(h))), cache)
        if self.position is not None:
            inner = self.position(inner, cache)
        out: Tensor = h + self.widen(self.dropout(self.activation(inner)))
        return out


MODEL = Model("PixelCNN", "van den Oord et al. 2016, arXiv:1601.06759", Config, PixelCnn)
