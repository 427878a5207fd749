"""Layers masked by degrees, and a perceptron of them that is autoregressive (Germain et al. 2015, arXiv:1502.03509).

The inputs have degrees 1 .. D in the model's order, hidden units degrees 1 .. D - 1. A hidden unit sees units of its
own degree or less (eq. 13), an output those of a degree below its own (eq. 14): so outputs k depend on inputs before k
alone. Units stand sorted by degree, so what a unit sees is always the first part of the layer below. Therefore
sampling computes each unit once, when the last input that it sees is known: an image costs one pass of the network.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def hidden_degrees(width: int, dims: int) -> Tensor:
    """Degrees 1 .. D - 1 in rising order, each the same number of times as nearly as can be, int64 (width,)."""
    return 1 + torch.arange(width) * max(dims - 1, 1) // width


class MaskedLinear(nn.Module):
    """A linear layer whose units see inputs of lower degree, or of their own too unless `strict`."""

    mask: Tensor

    def __init__(self, into: Tensor, out: Tensor, strict: bool) -> None:
        """into, out: the degrees of inputs and outputs, int64 (I,) and (O,).

        Weights as `nn.Linear` initialises them, with the fan-in that the mask leaves.
        """
        super().__init__()
        seen = into[None, :] < out[:, None] if strict else into[None, :] <= out[:, None]
        self.register_buffer("mask", seen.float(), persistent=False)
        bound = seen.sum(1, keepdim=True).clamp(min=1).rsqrt()
        self.weight = nn.Parameter((2 * torch.rand(seen.shape) - 1) * bound * seen)
        self.bias = nn.Parameter((2 * torch.rand(len(out)) - 1) * bound[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) to (B, O)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedMlp(nn.Module):
    """Maps x (B, D) to P numbers for each dimension that depend on the dimensions before it in the order alone.

    Without hidden layers it is a linear autoregression.
    """

    order: Tensor
    rank: Tensor

    def __init__(
        self,
        dims: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        order: Tensor | None = None,
        features: int = 1,
        direct: bool = False,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        """D dimensions, the widths of the hidden layers, P outputs for each dimension.

        order: int64 (D,), which dimension is k-th; None: as they stand. features: numbers that encode a dimension.
        direct: also a linear layer from inputs to outputs (sec. 4.2). dropout: of hidden units, after each layer.
        """
        super().__init__()
        self.dims, self.outputs, self.features = dims, outputs, features
        self.natural = order is None
        order = torch.arange(dims) if order is None else order
        if not torch.equal(order.sort().values, torch.arange(dims)):
            raise ValueError(f"expected an order of the dimensions 0 .. {dims - 1}, got {order.tolist()}")
        self.register_buffer("order", order.clone(), persistent=not self.natural)
        self.register_buffer("rank", order.argsort(), persistent=not self.natural)
        degrees = torch.arange(1, dims + 1)
        below = [degrees.repeat_interleave(features), *(hidden_degrees(width, dims) for width in hidden)]
        above = degrees.repeat_interleave(outputs)
        self.hidden = nn.ModuleList(MaskedLinear(a, b, strict=False) for a, b in itertools.pairwise(below))
        self.last = MaskedLinear(below[-1], above, strict=True)
        self.direct = MaskedLinear(below[0], above, strict=True) if direct and hidden else None
        self.activation = activation()
        self.dropout = nn.Dropout(dropout)
        self.known = [[int((layer <= k).sum()) for k in range(dims + 1)] for layer in below]
        """How many units of each layer, the inputs first, are known when the first k dimensions are."""

    def forward(self, x: Tensor) -> Tensor:
        """Real numbers (B, D), or (B, D, features), to (B, P, D)."""
        x = (x if self.natural else x[:, self.order]).flatten(1)
        h = x
        for layer in self.hidden:
            h = self.dropout(self.activation(layer(h)))
        y: Tensor = self.last(h)
        if self.direct is not None:
            y = y + self.direct(x)
        y = y.view(-1, self.dims, self.outputs)
        return (y if self.natural else y[:, self.rank]).transpose(1, 2)

    def steps(self, n: int) -> MlpSteps:
        """An empty memory for n rows; it computes what `forward` does in evaluation mode, dimension by dimension."""
        return MlpSteps(self, n)


class MlpSteps:
    """What the dimensions told so far have made of a `MaskedMlp`: no unit is computed twice, and no mask is needed."""

    def __init__(self, net: MaskedMlp, n: int) -> None:
        self.net = net
        weight = net.last.weight
        self._units = [weight.new_zeros(known[-1], n) for known in net.known]  # of each layer, the inputs first

    def outputs(self, k: int) -> Tensor:
        """The P outputs (n, P) of the k-th dimension in order, k = 0 .. D - 1, once all before it have been told."""
        net = self.net
        rows = slice(k * net.outputs, (k + 1) * net.outputs)
        y = self._part(net.last, rows, self._units[-1][: net.known[-1][k]])
        if net.direct is not None:
            y = y + self._part(net.direct, rows, self._units[0][: net.known[0][k]])
        return y.T

    def tell(self, k: int, value: Tensor) -> None:
        """The value (n,), or (n, features), of the k-th dimension in order; k = 0, 1, 2, ... in turn."""
        net = self.net
        self._units[0][k * net.features : (k + 1) * net.features] = value.reshape(-1, net.features).T
        for i, layer in enumerate(net.hidden):
            new = slice(net.known[i + 1][k], net.known[i + 1][k + 1])
            if new.start < new.stop:
                below = self._units[i][: net.known[i][k + 1]]
                self._units[i + 1][new] = net.activation(self._part(layer, new, below))

    @staticmethod
    def _part(layer: nn.Module, rows: slice, below: Tensor) -> Tensor:
        """Some units (rows, n) of a layer, of which all see `below` (I, n) and nothing beyond it."""
        assert isinstance(layer, MaskedLinear)
        return torch.addmm(layer.bias[rows, None], layer.weight[rows, : len(below)], below)
