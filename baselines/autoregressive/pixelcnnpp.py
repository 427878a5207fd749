"""PixelCNN++: mixtures of rounded logistics by two streams of several sizes (Salimans et al. 2017, arXiv:1701.05517).

Each pixel is a mixture of K logistics over all of its colours, rounded to the levels, with open edge bins (eq. 2).
Within a component green's mean is linear in red, and blue's in red and green (eq. 3), so a colour's own conditional is
a mixture weighted by how well each component told the colours before it. Of the network's streams one is convolved
downwards and sees the rows above, one is convolved down and right and sees the pixel's row too; gated residual blocks
with concatenated ELUs; strided convolutions down, transposed ones up, and shortcuts between blocks of one size
(sec. 2.3-2.5, Fig. 2). Departures for small data: fewer blocks and features, no weight normalisation, transposed
convolutions of 2x2 in both streams, learned biases for each position, dropout of whole features, averaged weights, and
clipped gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregression import Autoregressive, Known
from baselines.autoregressive.canvas import Canvas
from baselines.contract import Given, ImageShape, Model, Training
from baselines.data.likelihood import discretised_logistic, logistic_mixture, logistic_mixture_levels, to_signed
from baselines.errors import UserError
from baselines.nets.raster import At, Memory, RasterConv2d, Region, fronts

_LOWEST_LOG_SCALE = -7.0  # as in the paper's code: narrower logistics are all of one level


@dataclass(frozen=True)
class Config:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    width: int = 24  # features of each stream
    blocks: int = 2  # of each stream, at each size on the way down; one more on the way up, but at the smallest size
    sizes: int = 2  # the image's own, its half, ...
    components: int = 5  # K, of the mixture
    positions: bool = True  # learned biases for each position, in each block
    dropout: float = 0.4  # of features, within each block
    lr: float = 6e-3
    warmup: float = 0.05  # fraction of the budget
    training: Training = Training(batch_size=64, clip_norm=1.0)

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.sizes, self.components) < 1:
            raise UserError(
                "pixelcnnpp: expected width, blocks, sizes and components >= 1, "
                f"got {self.width}, {self.blocks}, {self.sizes} and {self.components}"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"pixelcnnpp: expected dropout in [0, 1), got {self.dropout}")


class PixelCnnPp(Autoregressive):
    """log P(x) = sum_i log P(x_i | x_<i) over pixels, each a mixture over all of its colours."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.net = Streams(shape, config)

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """Of each colour's mixture over all levels."""
        found = self._mixtures(self.net(x), x)
        return torch.stack([logistic_mixture_levels(*mixture, self.shape.levels) for mixture in found], 2)

    def dimension_nats(self, x: Tensor, given: Given | None = None) -> Tensor:
        """-log P(x_k | those before it) of uint8 x, (B, C, H, W)."""
        colours = enumerate(self._mixtures(self.net(x), x))
        return -torch.stack([logistic_mixture(x[:, c], *mixture, self.shape.levels) for c, mixture in colours], 1)

    def _mixtures(self, out: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Log-weights, means and log-scales (B, K, ...) of each colour in turn, given the colours before it in x.

        out: (B, numbers, ...) of the network; x: levels (B, C, ...), which may be drawn while this goes on.
        """
        channels, levels = self.shape.channels, self.shape.levels
        numbers = out.view(len(out), self.config.components, -1, *out.shape[2:])
        weights, means = numbers[:, :, 0], numbers[:, :, 1 : 1 + channels]
        log_scales = numbers[:, :, 1 + channels : 1 + 2 * channels].clamp(min=_LOWEST_LOG_SCALE)
        slopes = numbers[:, :, 1 + 2 * channels :].tanh()
        used = 0
        for colour in range(channels):
            mean = means[:, :, colour]
            for before in range(colour):
                mean = mean + slopes[:, :, used] * to_signed(x[:, before, None], levels).to(out.dtype)  # eq. 3
                used += 1
            yield weights, mean, log_scales[:, :, colour]
            own = discretised_logistic(x[:, colour, None], mean, log_scales[:, :, colour], levels)
            weights = weights.log_softmax(1) + own  # P(component | colours so far), not normalised

    @torch.no_grad()
    def draw(self, uniform: Tensor, known: Known | None = None, given: Given | None = None) -> Tensor:
        """One pass of the network in all: the downward stream a row at a time, the other a pixel at a time."""
        _, height, width = self.shape.chw
        canvas, memory = Canvas(uniform, known), Memory(len(uniform), height, width)
        for region in fronts(height, width, width):
            row = Region(region.row, 0, 1, width) if region.column == 0 else None
            pixels, step = canvas.pixels(region), Step(memory, row, region)
            out = self.net(pixels.values, step)
            for colour, mixture in enumerate(self._mixtures(out, pixels.values)):
                pixels.put(colour, invert_mixture(*mixture, self.shape.levels, pixels.uniform[:, colour]))
            self.net.tell(pixels.values, step)
            canvas.keep(region, pixels)
        return canvas.images


def invert_mixture(log_weights: Tensor, mean: Tensor, log_scale: Tensor, levels: int, uniform: Tensor) -> Tensor:
    """What `invert_cdf` finds of `logistic_mixture_levels`, by the mixture's own CDF: the level uint8 (B,).

    log_weights, mean, log_scale: (B, K), as in `logistic_mixture`; uniform: (B,).
    """
    edges = (2 * torch.arange(levels - 1, device=mean.device, dtype=mean.dtype) + 1) / (levels - 1) - 1  # above each
    below = torch.sigmoid((edges[:, None] - mean[:, None]) * torch.exp(-log_scale)[:, None])  # (B, levels - 1, K)
    cdf = torch.bmm(below, log_weights.softmax(1)[:, :, None])
    return (cdf[:, :, 0] <= uniform[:, None]).sum(1).to(torch.uint8)


class Step(NamedTuple):
    """One call of the network, or of its part of one size, while images are drawn."""

    memory: Memory
    row: Region | None  # what the downward stream passes over; None if it is done with the pixel's row
    pixel: Region

    @property
    def here(self) -> At:
        """Where the stream that moves down and right works."""
        return At(self.memory, self.pixel, self.pixel)

    @property
    def across(self) -> At | None:
        """Where the downward stream works."""
        return None if self.row is None else At(self.memory, self.row, self.row)

    @property
    def halved(self) -> Step | None:
        """The same at half the size: every other pixel of every other row."""
        if self.pixel.row % 2 or self.pixel.column % 2:
            return None
        memory = self.memory.halved
        row = None if self.row is None else Region(self.row.row // 2, 0, 1, memory.width)
        return Step(memory, row, Region(self.pixel.row // 2, self.pixel.column // 2))


class Streams(nn.Module):
    """The numbers of the mixture of every pixel: K of weights, means, log-scales and slopes."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.levels = shape.levels
        channels, width, size = shape.channels, config.width, (shape.height, shape.width)
        places = size if config.positions else None
        self.above = RasterConv2d(channels + 1, width, (-2, -1), (-1, 1), positions=places)
        self.row_above = RasterConv2d(channels + 1, width, (-1, -1), (-1, 1), positions=places)
        self.left = RasterConv2d(channels + 1, width, (-1, 0), (-1, -1))
        self.level = Level(size, config.sizes, config)
        self.last = RasterConv2d(width, config.components * (1 + 2 * channels + channels * (channels - 1) // 2))
        spread = torch.linspace(-0.8, 0.8, config.components)
        with torch.no_grad():  # components begin apart from each other, and about as wide as they are apart
            bias = self.last.bias.view(config.components, -1)
            bias[:, 1 : 1 + channels] = spread[:, None]
            bias[:, 1 + channels : 1 + 2 * channels] = math.log(0.5 / config.components)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """uint8 (B, C, H, W) to (B, numbers, H, W); or a pixel to (B, numbers), from what was told."""
        if step is None:
            x = self._scaled(x)
            u, ul = self.level(self.above(x), self.row_above(x) + self.left(x))
            out: Tensor = self.last(F.elu(ul))
            return out
        told = At(step.memory, None, step.pixel)
        ul = self.row_above(None, told) + self.left(None, told)
        u = None if step.row is None else self.above(None, At(step.memory, None, step.row))
        _, ul = self.level(u, ul, step)
        return self.last(F.elu(ul), step.here)

    def tell(self, values: Tensor, step: Step) -> None:
        """The values uint8 (B, C) of a pixel."""
        x = self._scaled(values)
        for layer in (self.above, self.row_above, self.left):
            step.memory.feed(layer, x, step.pixel)

    def _scaled(self, x: Tensor) -> Tensor:
        """With a constant feature, which tells the image from the zeros around it."""
        y = to_signed(x if x.is_floating_point() else x.to(self.left.weight.dtype), self.levels)
        return torch.cat([y, torch.ones_like(y[:, :1])], 1)


class Level(nn.Module):
    """Both streams at one size, around those at half of it: shortcuts lead from blocks down to blocks up."""

    def __init__(self, size: tuple[int, int], sizes: int, config: Config) -> None:
        super().__init__()
        self.size = size
        width = config.width
        self.down = nn.ModuleList(Pair(size, config, shortcut=False) for _ in range(config.blocks))
        self.halved: Level | None = None
        if sizes > 1:
            half = -(-size[0] // 2), -(-size[1] // 2)
            self.halve_u = RasterConv2d(width, width, (-1, 0), (-1, 1), stride=2)
            self.halve_ul = RasterConv2d(width, width, (-1, 0), (-1, 0), stride=2)
            self.halved = Level(half, sizes - 1, config)
            self.double_u, self.double_ul = Double(width), Double(width)
        self.up = nn.ModuleList(Pair(size, config, shortcut=True) for _ in range(config.blocks + (sizes > 1)))

    def forward(self, u: Tensor | None, ul: Tensor, step: Step | None = None) -> tuple[Tensor | None, Tensor]:
        """(B, width, H, W) each; or a row (None where it is done) and a pixel, (B * pixels, width)."""
        passed = [(u, ul)]
        for pair in self.down:
            u, ul = pair(u, ul, None, None, step)
            passed.append((u, ul))
        if self.halved is None:
            passed.pop()
        elif step is None:
            assert u is not None
            u, ul = self.halved(self.halve_u(u), self.halve_ul(ul))
            u, ul = self.double_u(u, self.size), self.double_ul(ul, self.size)
        else:
            u, ul = self._around(u, ul, step)
        for pair in self.up:
            u, ul = pair(u, ul, *passed.pop(), step)
        return u, ul

    def _around(self, u: Tensor | None, ul: Tensor, step: Step) -> tuple[Tensor | None, Tensor]:
        """Through half the size and back, for those of its pixels whose turn has come."""
        memory, row, pixel = step
        memory.feed(self.halve_ul, ul, pixel)
        if row is not None:
            assert u is not None
            memory.feed(self.halve_u, u, row)
        below = step.halved
        if below is not None:
            assert self.halved is not None
            inner = None if below.row is None else self.halve_u(None, At(memory, None, below.row))
            inner, inner_ul = self.halved(inner, self.halve_ul(None, At(memory, None, below.pixel)), below)
            if below.row is not None:
                self.double_u.keep(inner, below.row, memory)
            self.double_ul.keep(inner_ul, below.pixel, memory)
        u = None if row is None else memory.recall(self.double_u, row)
        return u, memory.recall(self.double_ul, pixel)


class Double(nn.Module):
    """A transposed convolution of 2x2 with stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = RasterConv2d(width, 4 * width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, width, h, w) to (B, width, *size), sizes up to 2h x 2w."""
        parts = self.conv(x).view(len(x), 2, 2, *x.shape[1:])  # (B, row, column, width, h, w)
        whole = parts.permute(0, 3, 4, 1, 5, 2).flatten(2, 3).flatten(3, 4)
        return whole[:, :, : size[0], : size[1]]

    def keep(self, x: Tensor, region: Region, memory: Memory) -> None:
        """Put features (B * pixels, width) of a run of pixels into the `memory` of twice their size."""
        parts = self.conv(x, At(memory, region, region)).view(memory.batch, region.columns, 2, 2, x.shape[1])
        twice = Region(2 * region.row, 2 * region.column, 2, 2 * region.columns)
        memory.keep(self, parts.transpose(1, 2).reshape(-1, x.shape[1]), twice)


class Pair(nn.Module):
    """A block of each stream; the downward one's features lead into the other's, as do those of a shortcut."""

    def __init__(self, size: tuple[int, int], config: Config, shortcut: bool) -> None:
        super().__init__()
        width = config.width
        self.u = Block((-1, 1), size, config)
        self.ul = Block((-1, 0), size, config)
        self.across = RasterConv2d(2 * width, width)
        self.short_u = RasterConv2d(2 * width, width) if shortcut else None
        self.short_ul = RasterConv2d(2 * width, width) if shortcut else None

    def forward(
        self, u: Tensor | None, ul: Tensor, short_u: Tensor | None, short_ul: Tensor | None, step: Step | None
    ) -> tuple[Tensor | None, Tensor]:
        """Features of both streams, and those at the other end of the shortcut, to the streams' next ones."""
        row, here = (None, None) if step is None else (step.across, step.here)
        across = None
        if u is not None:
            u = self.u(u, None if self.short_u is None else self.short_u(concat_elu(short_u), row), row)
            across = self.across(concat_elu(u), row)
            if step is not None and step.row is not None:
                step.memory.keep(self, across, step.row)
        if step is not None:
            across = step.memory.recall(self, step.pixel)
        assert across is not None
        if self.short_ul is not None:
            across = across + self.short_ul(concat_elu(short_ul), here)
        return u, self.ul(ul, across, here)


def concat_elu(x: Tensor | None) -> Tensor:
    """ELU of x and of -x, one after the other on axis 1."""
    assert x is not None
    return F.elu(torch.cat([x, -x], 1))


class Block(nn.Module):
    """A gated residual block: x + a * sigmoid(b), a and b by two convolutions of the pixel's row and the one above."""

    def __init__(self, columns: tuple[int, int], size: tuple[int, int], config: Config) -> None:
        super().__init__()
        width = config.width
        places = size if config.positions else None
        self.first = RasterConv2d(2 * width, width, (-1, 0), columns, positions=places)
        self.dropout = nn.Dropout2d(config.dropout)
        self.second = RasterConv2d(2 * width, 2 * width, (-1, 0), columns)

    def forward(self, x: Tensor, more: Tensor | None, at: At | None) -> Tensor:
        """(B, width, H, W), or a region (B * pixels, width), to the same; `more` is added within."""
        h = self.first(concat_elu(x), at)
        if more is not None:
            h = h + more
        h = concat_elu(h)
        a, b = self.second(self.dropout(h) if at is None else h, at).chunk(2, 1)
        return x + a * b.sigmoid()


MODEL = Model("PixelCNN++", "Salimans et al. 2017, arXiv:1701.05517", Config, PixelCnnPp)
