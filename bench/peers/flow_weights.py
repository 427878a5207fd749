"""Gives flows of other libraries the weights of ours, so that all have the same density.

Each library squashes what its network says of a scale in its own way, so all log-scales are made constants of their
dimension here: the last layer's rows for them are 0 but for the bias. Shifts come from the whole network. The masks of
other libraries give each degree other units than ours do; units are paired by degree, and what remains is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.nets.made import MaskedLinear, MaskedMlp, hidden_degrees

LEAST, MOST = 0.6, 0.95  # of the factors; one of the libraries has none above 1

Raw = Callable[[Tensor], Tensor]


def ours_raw(factor: Tensor) -> Tensor:
    """exp(tanh(raw)) = factor."""
    return torch.atanh(factor.log())


def zuko_raw(factor: Tensor) -> Tensor:
    """exp(raw / (1 + |raw| / L)) = factor, L = log 1000."""
    log = factor.log()
    return log / (1 - log.abs() / math.log(1e3))


def softplus_raw(factor: Tensor) -> Tensor:
    """softplus(raw) + 0.001 = factor."""
    return torch.expm1(factor - 1e-3).log()


def sigmoid_raw(factor: Tensor) -> Tensor:
    """sigmoid(raw + 2) + 0.001 = factor."""
    return torch.logit(factor - 1e-3) - 2


@dataclass(frozen=True)
class Rows:
    """Where a library's last layer has a dimension's numbers, and from which raw number it makes a factor.

    Attributes:
        shift, scale: of each changed dimension in our order, the rows of its shift and of its raw scale.
        raw: the raw number that gives a factor.
        opposite: one of us computes factor x + shift and the other (x - shift) / factor.
    """

    shift: Tensor
    scale: Tensor
    raw: Raw
    opposite: bool = False


def random_factors(dims: int, generator: torch.Generator) -> Tensor:
    """(D,) between `LEAST` and `MOST`."""
    return LEAST + (MOST - LEAST) * torch.rand(dims, generator=generator)


def cyclic_degrees(width: int, dims: int) -> Tensor:
    """Degrees of hidden units as all three libraries have them: 1 .. D - 1, again and again."""
    return 1 + torch.arange(width) % max(dims - 1, 1)


def partners(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of units of one degree: their places in ours and in theirs, (P,) each."""
    places: dict[int, list[int]] = {}
    for place, degree in enumerate(theirs.tolist()):
        places.setdefault(degree, []).append(place)
    pairs = [(i, places[d].pop(0)) for i, d in enumerate(ours.tolist()) if places.get(d)]
    first, second = torch.tensor(pairs).T
    return first, second


def pairs_of(dims: int, hidden: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """The paired units of each hidden layer."""
    return [partners(hidden_degrees(width, dims), cyclic_degrees(width, dims)) for width in hidden]


@torch.no_grad()
def prepare(net: MaskedMlp, factors: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Random shifts, these factors, and no units but the paired ones; of our perceptron.

    factors: (D,), what exp(tanh(raw)) shall be.
    """
    bound = 1 / math.sqrt(net.last.weight.shape[1])
    nn.init.uniform_(net.last.weight, -bound, bound).mul_(net.last.mask)
    nn.init.uniform_(net.last.bias, -bound, bound)
    net.last.weight[1::2] = 0
    net.last.bias[1::2] = ours_raw(factors)
    layers = [*net.hidden, net.last]
    for below, above, (kept, _) in zip(layers[:-1], layers[1:], pairs, strict=True):
        assert isinstance(below, MaskedLinear)
        assert isinstance(above, MaskedLinear)
        cut = torch.ones(len(below.bias), dtype=torch.bool)
        cut[kept] = False
        below.weight[cut], below.bias[cut] = 0, 0
        above.weight[:, cut] = 0


@torch.no_grad()
def prepare_dense(last: nn.Linear, factors: Tensor) -> None:
    """These factors, (D/2,), from a last layer that has the raw scales first and then the shifts."""
    last.weight[: len(factors)] = 0
    last.bias[: len(factors)] = ours_raw(factors)


@torch.no_grad()
def copy_masked(
    net: MaskedMlp, theirs: Sequence[nn.Linear], pairs: Sequence[tuple[Tensor, Tensor]], inputs: Tensor, rows: Rows
) -> None:
    """Our perceptron's weights into theirs; inputs: (D,), where they have our k-th dimension."""
    ours = [*net.hidden, net.last]
    assert [layer.weight.shape for layer in ours] == [layer.weight.shape for layer in theirs], "premise: equal widths"
    everything = torch.arange(net.dims)
    columns = [(everything, inputs), *pairs]
    for layer, other, (a, b), (c, d) in zip(ours[:-1], theirs[:-1], columns[:-1], columns[1:], strict=True):
        assert isinstance(layer, MaskedLinear)
        other.weight.zero_()
        other.bias.zero_()
        other.weight[d[:, None], b] = (layer.weight * layer.mask)[c[:, None], a]
        other.bias[d] = layer.bias[c]
    a, b = columns[-1]
    last = net.last.weight * net.last.mask
    _last(theirs[-1], last[::2][:, a], net.last.bias[::2], torch.tanh(net.last.bias[1::2]).exp(), b, rows)


@torch.no_grad()
def copy_dense(ours: Sequence[nn.Linear], theirs: Sequence[nn.Linear], rows: Rows) -> None:
    """The same of a perceptron without masks, whose last layer has our raw scales first and then the shifts."""
    for layer, other in zip(ours[:-1], theirs[:-1], strict=True):
        other.weight.copy_(layer.weight)
        other.bias.copy_(layer.bias)
    half = len(ours[-1].bias) // 2
    factors = torch.tanh(ours[-1].bias[:half]).exp()
    everything = torch.arange(ours[-1].weight.shape[1])
    _last(theirs[-1], ours[-1].weight[half:], ours[-1].bias[half:], factors, everything, rows)


def _last(layer: nn.Linear, weight: Tensor, bias: Tensor, factors: Tensor, columns: Tensor, rows: Rows) -> None:
    if rows.opposite:  # factor x + shift = (x - shift') / factor', and the other way round
        weight, bias, factors = -weight / factors[:, None], -bias / factors, 1 / factors
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[rows.shift[:, None], columns] = weight
    layer.bias[rows.shift] = bias
    layer.bias[rows.scale] = rows.raw(factors)
