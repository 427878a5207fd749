"""Diagonal BiLSTM: recursions along both diagonals (van den Oord et al. 2016, arXiv:1601.06759, sec. 3.2, 3.3, 3.5).

As in its Table 1: a 7x7 convolution of mask A, residual LSTM layers, two 1x1 layers, and a softmax over the levels of
each colour in turn. A layer's input-to-state convolution is 1x1 of mask B; its state-to-state convolution is 2x1 on
the skewed map, that is, on the pixels to the left and above, so that one layer sees all that lies left of and above a
pixel. The same is done from the right edge, on the mirrored map, and the result is moved one row down before it is
added, lest a pixel see those to its right. Together nothing that precedes a pixel is hidden from it, but for one thing
that the paper does not speak of: mask A hides the last pixel of a row from all features of that row. So there is one
more column of features at the right edge, from which the pass from the right begins. Departures for small data:
learned biases for each position, dropout of whole features, and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregressive.lattice import arranged, diagonal_order, diagonals, lattice_lstm, lstm
from baselines.autoregressive.lstm import (
    LstmConfig,
    LstmLayer,
    MaskedLinear,
    Memory,
    PixelRnn,
    PixelRnnNet,
    state_weight,
)
from baselines.contract import ImageShape, Model

MARGIN = 1  # columns of features beyond the right edge


@dataclass(frozen=True)
class Config(LstmConfig):
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""


class DiagonalLayer(LstmLayer):
    """The sum of the states from the upper left and, moved one row down, of those from the upper right."""

    orders: Tensor
    places: Tensor

    def __init__(self, shape: ImageShape, config: LstmConfig) -> None:
        super().__init__(shape, config)
        self.row = shape.width + MARGIN
        size = shape.height, self.row
        self.plan = diagonals(*size)
        orders = torch.stack([diagonal_order(*size), diagonal_order(*size, flipped=True)])
        self.register_buffer("orders", orders, persistent=False)  # raster places along the diagonals
        self.register_buffer("places", orders.argsort(1), persistent=False)  # and back
        gates = self.narrow.repeat(4)
        self.inputs = nn.ModuleList(MaskedLinear(self.wide, gates) for _ in range(2))
        self.before = nn.ParameterList(state_weight(2, len(self.narrow)) for _ in range(2))  # left or right, above

    def input_weights(self) -> tuple[Tensor, Tensor]:
        """(2, 2h, 4h) of the two directions, and their biases (2, 1, 4h)."""
        left, right = (layer for layer in self.inputs if isinstance(layer, MaskedLinear))
        return torch.stack((left.masked().T, right.masked().T)), torch.stack((left.bias, right.bias))[:, None]

    def states(self, x: Tensor) -> Tensor:
        """Inputs (pixels, B, 2h) to hidden states (pixels, B, h)."""
        ordered = arranged(x, self.orders, self.places)
        weight, bias = self.input_weights()
        gates = torch.baddbmm(bias, ordered.flatten(1, 2), weight).view(*ordered.shape[:3], -1)
        left, right = lattice_lstm(gates, torch.stack(tuple(self.before)), self.plan)
        left = arranged(left, self.places[:1], self.orders[:1])[0]
        right = arranged(right, self.places[1:], self.orders[1:])[0]
        return left + F.pad(right[: -self.row], (0, 0, 0, 0, self.row, 0))


class DiagonalNet(PixelRnnNet):
    """Diagonal BiLSTM layers between the first and the last layers of a PixelRNN."""

    margin = MARGIN

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, [DiagonalLayer(shape, config) for _ in range(config.layers)])

    def memory(self, n: int) -> Memory:
        """The states of the row above in both directions, and what of this row has been drawn."""
        return DiagonalMemory(self, n)


class DiagonalMemory(Memory):
    """The pass from the left is done pixel by pixel; that from the right on a row as soon as it is complete."""

    def __init__(self, net: DiagonalNet, n: int) -> None:
        super().__init__(net, n)
        layers = [layer for layer in net.layers if isinstance(layer, DiagonalLayer)]
        width, wide, narrow = net.columns, len(layers[0].wide), len(layers[0].narrow)
        weights, biases = zip(*(layer.input_weights() for layer in layers), strict=True)
        from_input = torch.stack(weights, 1)  # (2, layers, 2h, 4h)
        beside, above = torch.stack([torch.stack(tuple(layer.before)) for layer in layers], 1).chunk(2, 2)
        self.gate_bias = torch.stack(biases, 1)
        self.from_above, self.beside_right = above.contiguous(), beside[1].contiguous()
        self.from_left = [torch.cat(both) for both in zip(from_input[0], beside[0], strict=True)]  # (2h + h, 4h) each
        self.from_input_right = from_input[1]
        new = self.pixels.new_zeros
        self.inputs = new(len(layers), width, n, wide)
        self.left = new(len(layers), width + 1, n, narrow)  # of this row, above it while a row begins
        self.right = new(len(layers), width, n, narrow)  # of the row above
        self.cells = new(len(layers), width + 1, n, narrow)  # of `left`; place 0 of both is left of the image
        self.gates_above = new(len(layers), width, n, 4 * narrow)

    def begin_row(self) -> None:
        """The pass from the right on the row above, and what this row's pass from the left takes from above."""
        if self.row:
            self._from_the_right()
        product = torch.baddbmm(self.gate_bias[0], self.left[:, 1:].flatten(1, 2), self.from_above[0])
        self.gates_above = product.view_as(self.gates_above)

    def _from_the_right(self) -> None:
        gates = torch.baddbmm(self.gate_bias[1], self.inputs.flatten(1, 2), self.from_input_right)
        gates = torch.baddbmm(gates, self.right.flatten(1, 2), self.from_above[1]).view_as(self.gates_above)
        hidden: Tensor = torch.zeros_like(self.right[:, 0])
        cell = hidden
        for column in reversed(range(gates.shape[1])):
            hidden, cell = lstm(torch.baddbmm(gates[:, column], hidden, self.beside_right), cell)
            self.right[:, column] = hidden

    def states(self, layer: int, x: Tensor) -> Tensor:
        """From the left pixel's state and what was taken from above, with the pass from the right added."""
        column = self.column
        self.inputs[layer, column] = x
        both = torch.cat((x, self.left[layer, column]), -1)
        gates = torch.addmm(self.gates_above[layer, column], both, self.from_left[layer])
        hidden, cell = lstm(gates, self.cells[layer, column])
        self.left[layer, column + 1], self.cells[layer, column + 1] = hidden, cell
        return hidden + self.right[layer, column]


class DiagonalBiLstm(PixelRnn):
    """PixelRNN with Diagonal BiLSTM layers."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, DiagonalNet(shape, config))


MODEL = Model("Diagonal BiLSTM", "van den Oord et al. 2016, arXiv:1601.06759", Config, DiagonalBiLstm)
