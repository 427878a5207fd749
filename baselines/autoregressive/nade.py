"""NADE: a hidden layer for each dimension, all with the same weights (Larochelle and Murray 2011, AISTATS).

h_k = act(a_k), a_1 = c, a_{k+1} = a_k + W_k x_k, y_k = b_k + V_k h_k (also arXiv:1605.02226, sec. 2): the running
activation makes an image cost O(DH). Of two levels P(x_k = 1) = sigmoid(y_k). Beyond it: more levels than two.
Departures for small data: ReLU in place of the sigmoid, dropout of hidden units, and averaged weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from baselines.autoregressive.belief_net import BeliefNet, BeliefNetConfig, InputName, StepsOfNet
from baselines.contract import ImageShape, Model
from baselines.errors import UserError

_BLOCK = 8  # dimensions times features that are summed at once by a matrix product; measured at 784 dimensions


@dataclass(frozen=True)
class Config(BeliefNetConfig):
    """Sizes and optimiser; the defaults are tuned for 8x8 digits."""

    hidden: int = 500  # H
    activation: Literal["relu", "sigmoid"] = "relu"  # sigmoid is the paper's
    dropout: float = 0.75  # of hidden units, the same ones for all dimensions of an image
    inputs: InputName = "ladder"
    lr: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1:
            raise UserError(f"nade: expected hidden >= 1, got {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"nade: expected dropout in [0, 1), got {self.dropout}")


class Nade(BeliefNet):
    """One hidden layer that runs over the dimensions."""

    net: RunningLayer

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__(shape, config)
        self.net = RunningLayer(
            shape.dims, self.features, config.hidden, self.output.numbers, config.activation, config.dropout
        )

    def memory(self, n: int) -> StepsOfNet:
        """The running activation."""
        return RunningSteps(self.net, n)


class RunningLayer(nn.Module):
    """Encoded dimensions (B, D, E) to (B, P, D)."""

    def __init__(self, dims: int, features: int, hidden: int, outputs: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.rectified = activation == "relu"
        into, out = (dims * features) ** -0.5, hidden**-0.5
        self.w = nn.Parameter((2 * torch.rand(dims, features, hidden) - 1) * into)
        self.c = nn.Parameter((2 * torch.rand(hidden) - 1) * into)
        self.v = nn.Parameter((2 * torch.rand(dims, hidden, outputs) - 1) * out)
        self.b = nn.Parameter(torch.zeros(dims, outputs))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Block by block, so that of the B D H hidden values one block's exist at a time; so too in training.

        In training no gradient goes to x.
        """
        batch, hidden = len(x), len(self.c)
        block = max(1, _BLOCK // x.shape[2])
        if self.training:
            keep = self.dropout(x.new_ones(batch, hidden)) if self.dropout.p > 0 else None
            y: Tensor = _Blocks.apply(x, self.w, self.v, self.c, keep, block, self.rectified)
            return (y + self.b[:, None]).permute(1, 2, 0)
        a, found = self.c.expand(batch, hidden), []
        for k in range(0, x.shape[1], block):
            at = slice(k, k + block)
            h, a = _activations(a, x[:, at], self.w[at])
            found.append(torch.baddbmm(self.b[at, None], self.activate(h), self.v[at]))
        return torch.cat(found).permute(1, 2, 0)

    def activate(self, a: Tensor) -> Tensor:
        """Of whatever shape."""
        return a.relu() if self.rectified else a.sigmoid()


def _before(x: Tensor) -> Tensor:
    """What each of C dimensions and the one after them see of x (B, C, E): ((C + 1) B, C E), 0 where they do not."""
    size = x.shape[1]
    seen = torch.ones(size + 1, size, dtype=x.dtype, device=x.device).tril(-1)
    return (seen[:, None, :, None] * x).flatten(0, 1).flatten(1)


def _activations(a: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Of the C dimensions of a block, (C, B, H), and of the next block's first, (B, H), from a of its first."""
    all_ = (_before(x) @ w.flatten(0, 1)).view(-1, *a.shape) + a
    return all_[:-1], all_[-1]


class _Blocks(torch.autograd.Function):
    """y_k - b_k (D, B, P); keeps the activation at each block's start and computes the block again for its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, v: Tensor, c: Tensor, keep: Tensor | None, block: int, rectified: bool
    ) -> Tensor:
        batch, dims, _ = x.shape
        y = x.new_empty(dims, batch, v.shape[2])
        starts = x.new_empty(-(-dims // block) + 1, batch, len(c))
        starts[0] = c
        for i, k in enumerate(range(0, dims, block)):
            at = slice(k, k + block)
            h, starts[i + 1] = _activations(starts[i], x[:, at], w[at])
            h = h.relu_() if rectified else h.sigmoid_()
            torch.bmm(h if keep is None else h.mul_(keep), v[at], out=y[at])
        ctx.save_for_backward(x, w, v, starts, *(() if keep is None else (keep,)))
        ctx.block, ctx.rectified = block, rectified
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        assert not ctx.needs_input_grad[0], "x is data"
        x, w, v, starts, *keep = ctx.saved_tensors
        batch, dims, features = x.shape
        d_w, d_v = torch.empty_like(w), torch.empty_like(v)
        later = torch.zeros_like(starts[0])  # the gradient of what the later blocks add to
        for i, k in reversed(list(enumerate(range(0, dims, ctx.block)))):
            at = slice(k, k + ctx.block)
            xs, size = x[:, at], len(w[at])
            seen = _before(xs)[: size * batch]
            h = (seen @ w[at].flatten(0, 1)).view(size, batch, -1).add_(starts[i])
            h = h.relu_() if ctx.rectified else h.sigmoid_()
            d_h = torch.bmm(grad[at], v[at].transpose(1, 2))
            if keep:
                d_h *= keep[0]
            torch.bmm((h * keep[0] if keep else h).transpose(1, 2), grad[at], out=d_v[at])
            d_a = d_h.mul_(h > 0 if ctx.rectified else h * (1 - h))
            torch.mm(seen.T, d_a.flatten(0, 1), out=d_w[at].view(size * features, -1))
            d_w[at].view(size * features, -1).addmm_(xs.flatten(1).T, later)
            later += d_a.sum(0)
        return None, d_w, d_v, later.sum(0), None, None, None


class RunningSteps:
    """a_k of n images, to which a step adds one dimension."""

    def __init__(self, net: RunningLayer, n: int) -> None:
        self.net = net
        self.a = net.c.expand(n, -1).clone()

    def outputs(self, k: int) -> Tensor:
        """The P outputs (n, P) of the k-th dimension in order, once all before it have been told."""
        return torch.addmm(self.net.b[k], self.net.activate(self.a), self.net.v[k])

    def tell(self, k: int, value: Tensor) -> None:
        """The encoded value (n, E) of the k-th dimension in order; k = 0, 1, 2, ... in turn."""
        self.a.addmm_(value, self.net.w[k])


MODEL = Model("NADE", "Larochelle and Murray 2011, AISTATS", Config, Nade)
