"""What the two PixelRNNs share: everything but the recursion (van den Oord et al. 2016, arXiv:1601.06759, Table 1).

A 7x7 convolution of mask A, residual LSTM layers (Fig. 5), two 1x1 layers of mask B, and a softmax over the levels of
each colour in turn. Features lie last and pixels first, (pixels, B, features), so that whole rows or diagonals are
contiguous. The features of a state and of each of its gates are split into one group for each colour.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregression import Autoregressive, Steps
from baselines.contract import Given, ImageShape, Training
from baselines.data.likelihood import to_signed
from baselines.errors import UserError
from baselines.nets.masked import MaskedConv2d, colour_groups


@dataclass(frozen=True)
class LstmConfig:
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    width: int = 64  # features of the residual stream, 2h in the paper; rounded up to an even share for each colour
    layers: int = 4
    first_kernel: int = 7  # of the convolution with mask A
    positions: bool = True  # learned biases for each position
    dropout: float = 0.3  # of features, after each recursion and before the logits
    lr: float = 5e-3
    warmup: float = 0.05  # fraction of the budget
    training: Training = Training(batch_size=16, clip_norm=1.0)

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise UserError(f"pixelrnn: expected width >= 1 and layers >= 1, got {self.width} and {self.layers}")
        if self.first_kernel < 3 or not self.first_kernel % 2:
            raise UserError(f"pixelrnn: expected an odd first_kernel >= 3, got {self.first_kernel}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"pixelrnn: expected dropout in [0, 1), got {self.dropout}")
        if not self.lr > 0 or not 0 <= self.warmup <= 1:
            raise UserError(f"pixelrnn: expected lr > 0 and warmup in [0, 1], got {self.lr} and {self.warmup}")


class MaskedLinear(nn.Module):
    """A 1x1 convolution of mask B over features that lie last: a feature sees the colours up to its own."""

    mask: Tensor

    def __init__(self, groups_in: Tensor, groups_out: Tensor) -> None:
        """The colour of each feature, int64 (into,) and (out,); weights uniform within the root of the fan-in."""
        super().__init__()
        mask = (groups_in[None, :] <= groups_out[:, None]).float()
        self.register_buffer("mask", mask, persistent=False)
        bound = mask.sum(1).clamp(min=1).rsqrt()
        self.weight = nn.Parameter((2 * torch.rand(mask.shape) - 1) * bound[:, None] * mask)
        self.bias = nn.Parameter((2 * torch.rand(len(mask)) - 1) * bound)

    def masked(self) -> Tensor:
        """The weights that are used, (out, into)."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """(..., into) to (..., out)."""
        return F.linear(x, self.masked(), self.bias)


class Places(nn.Module):
    """Adds a learned number for every pixel and feature, 0 at first: a recursion alone sees only the borders."""

    def __init__(self, pixels: int, features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(pixels, 1, features))

    def forward(self, h: Tensor) -> Tensor:
        """(pixels, B, features) to the same."""
        return h + self.bias


class FeatureDropout(nn.Module):
    """Drops whole features of an image, at all pixels alike."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, h: Tensor) -> Tensor:
        """(pixels, B, features) to the same."""
        return h * F.dropout(h.new_ones(h.shape[1:]), self.p) if self.training and self.p else h


class LstmLayer(nn.Module, ABC):
    """A residual layer: 2h -> h by the recursion, h -> 2h by 1x1 of mask B (Fig. 5, right)."""

    def __init__(self, shape: ImageShape, config: LstmConfig) -> None:
        super().__init__()
        self.wide, self.narrow = groups(shape, config)
        self.dropout = FeatureDropout(config.dropout)
        self.widen = MaskedLinear(self.narrow, self.wide)

    @abstractmethod
    def states(self, x: Tensor) -> Tensor:
        """Inputs (pixels, B, 2h) to hidden states (pixels, B, h), pixels in raster order."""

    def forward(self, x: Tensor) -> Tensor:
        """(pixels, B, 2h) to the same."""
        out: Tensor = x + self.widen(self.dropout(self.states(x)))
        return out


def groups(shape: ImageShape, config: LstmConfig) -> tuple[Tensor, Tensor]:
    """The colours of the 2h and of the h features, h the least multiple of the colours with 2h >= width."""
    half = -(-config.width // (2 * shape.channels)) * shape.channels
    return colour_groups(2 * half, shape.channels), colour_groups(half, shape.channels)


def state_weight(taps: int, features: int) -> nn.Parameter:
    """A state-to-state convolution without a mask, (taps h, 4 h), uniform within the root of its fan-in."""
    bound = (taps * features) ** -0.5
    return nn.Parameter(torch.empty(taps * features, 4 * features).uniform_(-bound, bound))


class Memory(ABC):
    """What a sampler keeps of n images: their pixels, and the states of every layer as far as later pixels see them.

    `begin_row` is called before each row; then the network on each pixel, once for each colour.
    """

    def __init__(self, net: PixelRnnNet, n: int) -> None:
        """Nothing is drawn yet; the masked weights are laid out for products with one pixel's features."""
        shape, first = net.shape, net.first
        self.row = self.column = -1
        self.reach = first.reach
        size = (n, shape.channels, shape.height + self.reach, net.columns + 2 * self.reach)
        self.pixels = first.weight.new_zeros(size)  # on the scale that the first layer sees; 0 off the image
        self.kernel = first.masked_weight().flatten(1).T.contiguous()
        self.kernel_bias = first.bias
        self.widen = [layer.widen.masked().T.contiguous() for layer in net.lstm_layers]
        self.head = [(layer.masked().T.contiguous(), layer.bias) for layer in (net.hidden, net.logits)]
        self.places = None if net.places is None else net.places.bias.view(shape.height, net.columns, -1)

    @abstractmethod
    def begin_row(self) -> None:
        """Of the row above, which is complete, compute at once what the pixels of `row` will need."""

    @abstractmethod
    def states(self, layer: int, x: Tensor) -> Tensor:
        """Hidden states (n, h) of a layer at (row, column) from its inputs (n, 2h) there; kept for later pixels."""

    def keep(self, x: Tensor) -> None:
        """The scaled colours (n, C) of the pixel at (row, column); of those that follow, anything."""
        self.pixels[:, :, self.row + self.reach, self.column + self.reach] = x

    def features(self) -> Tensor:
        """The first layer's features (n, 2h) at (row, column)."""
        reach = self.reach
        patch = self.pixels[:, :, self.row : self.row + reach + 1, self.column : self.column + 2 * reach + 1]
        h = torch.addmm(self.kernel_bias, patch.flatten(1), self.kernel)
        return h if self.places is None else h + self.places[self.row, self.column]


class PixelRnnNet(nn.Module, ABC):
    """The logits of P(x_i | x_<i) for every pixel and colour at once."""

    margin = 0
    """Columns beyond the right edge at which there are features too, though no pixels."""

    def __init__(self, shape: ImageShape, config: LstmConfig, layers: Sequence[LstmLayer]) -> None:
        super().__init__()
        self.shape = shape
        self.columns = shape.width + self.margin
        wide, _ = groups(shape, config)
        self.first = MaskedConv2d(shape.channels, len(wide), config.first_kernel, "A", shape.channels)
        self.places = Places(shape.height * self.columns, len(wide)) if config.positions else None
        self.layers = nn.ModuleList(layers)
        self.hidden = MaskedLinear(wide, wide)
        self.dropout = FeatureDropout(config.dropout)
        self.logits = MaskedLinear(wide, colour_groups(shape.channels * shape.levels, shape.channels))

    @abstractmethod
    def memory(self, n: int) -> Memory:
        """An empty memory for n images."""

    @property
    def lstm_layers(self) -> list[LstmLayer]:
        """The residual layers, from the first."""
        return [layer for layer in self.layers if isinstance(layer, LstmLayer)]

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        """Levels (B, C, H, W) to logits (H W, B, C, levels); with a memory, of its pixel alone (H = W = 1)."""
        scaled = self.scaled(x)
        h = self._pixel(scaled[:, :, 0, 0], memory)[None] if memory is not None else self._image(scaled)
        return h.view(*h.shape[:2], self.shape.channels, self.shape.levels)

    def scaled(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], in the network's precision."""
        return to_signed(x, self.shape.levels).to(self.first.weight.dtype)

    def _image(self, x: Tensor) -> Tensor:
        h: Tensor = self.first(F.pad(x, (0, self.margin))).permute(2, 3, 0, 1).flatten(0, 1).contiguous()
        if self.places is not None:
            h = self.places(h)
        for layer in self.layers:
            h = layer(h)
        if self.margin:
            h = h.view(-1, self.columns, *h.shape[1:])[:, : -self.margin].flatten(0, 1)
        logits: Tensor = self.logits(self.dropout(self.hidden(h.relu()).relu()))
        return logits

    def _pixel(self, x: Tensor, memory: Memory) -> Tensor:
        memory.keep(x)
        h = self._last_features(memory)
        for weight, bias in memory.head:
            h = torch.addmm(bias, h.relu(), weight)
        return h

    def _last_features(self, memory: Memory) -> Tensor:
        h = memory.features()
        for index, layer in enumerate(self.lstm_layers):
            widened = torch.addmm(layer.widen.bias, memory.states(index, h), memory.widen[index])
            h = h + widened
        return h

    def finish_row(self, memory: Memory) -> None:
        """The states beyond the right edge."""
        for column in range(self.shape.width, self.columns):
            memory.column = column
            self._last_features(memory)


class PixelRnn(Autoregressive):
    """log P(x) = sum_i log P(x_i | x_<i) over pixels in raster order, colours R, G, B within a pixel."""

    net: PixelRnnNet

    def __init__(self, shape: ImageShape, config: LstmConfig, net: PixelRnnNet) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        self.training_config = config.training
        self.net = net

    def log_conditionals(self, x: Tensor, given: Given | None = None) -> Tensor:
        """Softmax over the levels of each pixel and colour."""
        channels, height, width = self.shape.chw
        log_p: Tensor = self.net(x).log_softmax(-1).view(height, width, len(x), channels, self.shape.levels)
        return log_p.permute(2, 4, 3, 0, 1)

    def dimension_nats(self, x: Tensor, given: Given | None = None) -> Tensor:
        """-log P(x_k | those before it) of uint8 x, (B, C, H, W): as the base, but with the levels left in place."""
        logits, levels = self.net(x), x.long().flatten(2).permute(2, 0, 1)
        nats = F.cross_entropy(logits.flatten(0, 2), levels.flatten(), reduction="none")
        return nats.view(levels.shape).permute(1, 2, 0).view(x.shape)

    def steps(self, n: int, given: Given | None = None) -> Steps:
        """A pixel costs one pixel's work for each colour."""
        return PixelSteps(self.net, n)


class PixelSteps:
    """Goes through the pixels with the network's memory."""

    def __init__(self, net: PixelRnnNet, n: int) -> None:
        self.net, self.memory = net, net.memory(n)
        self.colours, self.width = net.shape.channels, net.shape.width
        self.pixel = torch.zeros(n, self.colours, 1, 1, dtype=torch.uint8, device=net.first.weight.device)
        self.passed = -1  # the dimension at which the network last was

    def log_p(self, k: int) -> Tensor:
        """(n, levels); the earlier colours of the pixel are known by now."""
        place, colour = divmod(k, self.colours)
        row, self.memory.column = divmod(place, self.width)
        if row != self.memory.row:
            self.memory.row = row
            self.memory.begin_row()
        self.passed = k
        logits: Tensor = self.net(self.pixel, self.memory)
        return logits[0, :, colour].log_softmax(-1)

    def tell(self, k: int, value: Tensor) -> None:
        """After its last colour the pixel is in the memory, with the states that later pixels see."""
        colour = k % self.colours
        if colour == self.colours - 1 and self.passed != k:
            self.log_p(k)
        self.pixel[:, colour, 0, 0] = value
        if colour == self.colours - 1:
            self.memory.keep(self.net.scaled(self.pixel)[:, :, 0, 0])
            if self.memory.column == self.width - 1:
                self.net.finish_row(self.memory)
