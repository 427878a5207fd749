"""Row LSTM: a recursion down the rows of an image (van den Oord et al. 2016, arXiv:1601.06759, sec. 3.1, 3.3, 3.5).

As in its Table 1: a 7x7 convolution of mask A, residual LSTM layers with an input-to-state convolution 1x3 of mask B,
computed for the whole image at once, and a state-to-state convolution 1x3 without a mask on the row above, two 1x1
layers, and a softmax over the levels of each colour in turn. A pixel sees a triangle above it, its sides falling by
one column a row, and of its own and the rows beside that only what the convolutions of the input reach: each layer
one more pixel to the left. Departures for small data: learned biases for each position, dropout of whole features,
and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.autoregressive.lattice import lattice_lstm, lstm, rows
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


@dataclass(frozen=True)
class Config(LstmConfig):
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""


class RowLayer(LstmLayer):
    """Hidden states from the row above at columns c - 1, c, c + 1, and from inputs at columns c - 1 and c."""

    def __init__(self, shape: ImageShape, config: LstmConfig) -> None:
        super().__init__(shape, config)
        self.height, self.width = shape.height, shape.width
        self.plan = rows(shape.height, shape.width)
        gates = self.narrow.repeat(4)  # the tap to the right is masked, and left out
        self.centre = MaskedLinear(self.wide, gates)
        self.left = nn.Parameter(self.centre.weight.detach().new_empty(len(self.wide), len(gates)))
        bound = (2 * len(self.wide)) ** -0.5
        nn.init.uniform_(self.left, -bound, bound)
        self.above = state_weight(3, len(self.narrow))

    def input_weights(self) -> Tensor:
        """Of the inputs to the left and of the pixel's own, (2 * 2h, 4h)."""
        return torch.cat((self.left, self.centre.masked().T))

    def states(self, x: Tensor) -> Tensor:
        """Inputs (pixels, B, 2h) to hidden states (pixels, B, h)."""
        left = F.pad(x.view(self.height, self.width, *x.shape[1:]), (0, 0, 0, 0, 1, 0))[:, :-1].flatten(0, 1)
        gates = torch.cat((left, x), -1) @ self.input_weights() + self.centre.bias
        return lattice_lstm(gates[None], self.above[None], self.plan).squeeze(0)


class RowNet(PixelRnnNet):
    """Row LSTM layers between the first and the last layers of a PixelRNN."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, [RowLayer(shape, config) for _ in range(config.layers)])

    def memory(self, n: int) -> Memory:
        """The states of the row above, and what of this row has been drawn."""
        return RowMemory(self, n)


class RowMemory(Memory):
    """The row above is complete at every layer, so its part of all the gates of a row is one product."""

    def __init__(self, net: RowNet, n: int) -> None:
        super().__init__(net, n)
        layers = [layer for layer in net.layers if isinstance(layer, RowLayer)]
        width, wide, narrow = net.shape.width, len(layers[0].wide), len(layers[0].narrow)
        self.from_input = [layer.input_weights() for layer in layers]
        self.from_above = torch.stack([layer.above for layer in layers])
        self.gate_bias = torch.stack([layer.centre.bias for layer in layers])[:, None]
        new = self.pixels.new_zeros
        self.inputs = new(len(layers), width + 1, n, wide)  # of this row; place 0 is left of the image
        self.hidden = new(len(layers), width + 2, n, narrow)  # of this row, above it while a row begins
        self.cells = new(len(layers), width, n, narrow)
        self.cells_above = torch.zeros_like(self.cells)
        self.gates_above = new(len(layers), width, n, 4 * narrow)

    def begin_row(self) -> None:
        """The state-to-state convolution on the row above, at all columns and layers."""
        width = self.cells.shape[1]
        taps = torch.cat([self.hidden[:, k : k + width] for k in range(3)], -1)
        product = torch.baddbmm(self.gate_bias, taps.flatten(1, 2), self.from_above)
        self.gates_above = product.view_as(self.gates_above)
        self.cells_above, self.cells = self.cells, self.cells_above

    def states(self, layer: int, x: Tensor) -> Tensor:
        """Kept for the row below; the inputs for the pixel to the right."""
        column = self.column
        self.inputs[layer, column + 1] = x
        both = torch.cat((self.inputs[layer, column], x), -1)
        gates = torch.addmm(self.gates_above[layer, column], both, self.from_input[layer])
        hidden, cell = lstm(gates, self.cells_above[layer, column])
        self.hidden[layer, column + 1], self.cells[layer, column] = hidden, cell
        return hidden


class RowLstm(PixelRnn):
    """PixelRNN with Row LSTM layers."""

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config, RowNet(shape, config))


MODEL = Model("Row LSTM", "van den Oord et al. 2016, arXiv:1601.06759", Config, RowLstm)
