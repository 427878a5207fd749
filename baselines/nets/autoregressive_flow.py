"""Affine autoregressive layers: one direction is one pass of a masked network, the other goes dimension by dimension.

Masked autoregressive flow (Papamakarios et al. 2017, arXiv:1705.07057) and inverse autoregressive flow (Kingma et
al. 2016, arXiv:1606.04934). The slow direction computes every unit of the network once, when the last input that it
sees is known, and so does its derivative, going back; an image costs one pass of the network either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.nets.couplings import Flow
from baselines.nets.in_turn import LARGEST_LOG_SCALE, in_turn
from baselines.nets.made import MaskedMlp


class AffineAutoregressive(Flow):
    """Scales and shifts dimension k of (B, D) by what the masked network makes of the dimensions before it.

    Of x = exp(a) z + m either direction may hold the dimensions that m and a are made of: see the subclasses.
    """

    def __init__(self, dims: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        """D dimensions, widths of the hidden layers, dropout of hidden units. At first it is the identity."""
        super().__init__()
        self.net = MaskedMlp(dims, hidden, 2, dropout=dropout)
        torch.nn.init.zeros_(self.net.last.weight)
        torch.nn.init.zeros_(self.net.last.bias)

    def _shift_and_log_scale(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """m and a, (B, D) each."""
        shift, raw = self.net(conditions).unbind(1)
        return shift, LARGEST_LOG_SCALE * torch.tanh(raw)

    def _in_turn(self, given: Tensor, up: bool) -> tuple[Tensor, Tensor]:
        """The slow direction; up: from z to x, whose dimensions also are the conditions; else from x to z."""
        keep = 1 - self.net.dropout.p
        if not self.training or keep == 1:
            return in_turn(self.net, given, up)
        shapes = [(known[-1], len(given)) for known in self.net.known[1:]]
        dropped = [given.new_empty(shape).bernoulli_(keep).div_(keep) for shape in shapes]
        return in_turn(self.net, given, up, dropped)


class MaskedAutoregressive(AffineAutoregressive):
    """m and a are made of x: z is one pass (Papamakarios et al., eq. 4), x takes its dimensions in turn (eq. 3)."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = (x - m(x)) exp(-a(x))."""
        shift, log_scale = self._shift_and_log_scale(x)
        return (x - shift) * (-log_scale).exp(), -log_scale.sum(1)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x_k = z_k exp(a_k) + m_k with a_k and m_k of x_1 .. x_{k-1}."""
        return self._in_turn(z, up=True)


class InverseAutoregressive(AffineAutoregressive):
    """m and a are made of z: x is one pass (Kingma et al., eq. 10), z takes its dimensions in turn."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z_k = (x_k - m_k) exp(-a_k) with a_k and m_k of z_1 .. z_{k-1}."""
        return self._in_turn(x, up=False)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = exp(a(z)) z + m(z)."""
        shift, log_scale = self._shift_and_log_scale(z)
        return z * log_scale.exp() + shift, log_scale.sum(1)


class Permutation(Flow):
    """(B, *shape) to (B, D) with the flattened dimensions in another order: the k-th is `order[k]`."""

    order: Tensor
    back: Tensor

    def __init__(self, order: Tensor, *shape: int) -> None:
        """order: int64 (D,), each of 0 .. D - 1 once."""
        super().__init__()
        self.unordered = shape
        self.register_buffer("order", order.clone(), persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A relabelling: the log-determinant is 0."""
        return x.flatten(1)[:, self.order], x.new_zeros(len(x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Back to the first order, and the shape."""
        return z[:, self.back].reshape(-1, *self.unordered), z.new_zeros(len(z))


class Reversal(Flow):
    """The dimensions of (B, D) in reverse, so that the next layer goes through them from the other end."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A relabelling: the log-determinant is 0."""
        return x.flip(1), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same again."""
        return z.flip(1), z.new_zeros(len(z))
