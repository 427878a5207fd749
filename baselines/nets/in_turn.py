"""The slow direction of an affine autoregressive layer, dimension by dimension, and its exact derivative.

Every unit of the masked network is computed once, when the last input that it sees is known; going back, the
derivative by a unit is taken once, when those by all that see it are known. Either way is the work of one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from baselines.nets.made import MaskedMlp

LARGEST_LOG_SCALE = 1.0
"""log-scales are this times tanh: more, and ten layers fit digits less well on the validation split."""


def in_turn(net: MaskedMlp, given: Tensor, up: bool, dropped: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
    """out_k from given_k by m and a that the network makes of out_1 .. out_{k-1}; and log|det d out / d given| (B,).

    Args:
        net: D dimensions in their natural order, two outputs each, which are m and the a before its tanh; ReLU.
        given: (B, D).
        up: out = exp(a) given + m; else out = exp(-a) (given - m).
        dropped: of each hidden layer the factors of its units (width, B), 0 or 1 / (1 - p), in training.
    """
    layers = [*net.hidden, net.last]
    parameters = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    out, log_det = _InTurn.apply(given, up, net, dropped, *parameters)
    return out, log_det


class _InTurn(torch.autograd.Function):
    """All is held units first, (units, B): what a unit sees is then one block of memory, and so is what sees it.

    The first row of each layer is 1, which all units above see, so that its weights are the biases.
    """

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, up: bool, net: MaskedMlp, dropped: Sequence[Tensor], *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        t, n = given.T.contiguous(), len(given)
        pairs = zip(parameters[::2], parameters[1::2], strict=True)
        weights = [torch.cat([bias[:, None], weight], 1) for weight, bias in pairs]
        units = [t.new_ones(1 + layer[-1], n) for layer in net.known]  # what comes out, then the hidden layers
        y, scale = t.new_empty(net.dims, 2, n), torch.empty_like(t)  # m and tanh; exp(+-a)
        known = [[1 + count for count in layer] for layer in net.known]
        _forward(known, up, _arrays([t, y, scale]), *map(_arrays, (weights, units, dropped)))
        ctx.known, ctx.up, ctx.masks = known, up, [layer.mask for layer in (*net.hidden, net.last)]
        ctx.save_for_backward(t, y, scale, *weights, *units, *dropped)
        sign = 1.0 if up else -1.0
        return units[0][1:].T.contiguous(), y[:, 1].sum(0) * (sign * LARGEST_LOG_SCALE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        t, y, scale, *rest = ctx.saved_tensors
        count = len(ctx.known)
        weights, units, dropped = rest[:count], rest[count : 2 * count], rest[2 * count :]
        gates = [(h > 0).to(h.dtype) for h in units[1:]]
        for gate, factor in zip(gates, dropped, strict=False):
            gate[1:].mul_(factor)
        out, tanh = units[0][1:], y[:, 1]
        slope = LARGEST_LOG_SCALE * (1 - tanh * tanh)  # da / draw
        if ctx.up:
            by_log_scale, constant = (out - y[:, 0]) * slope, grad_log_det * slope
        else:
            by_log_scale, constant = -out * slope, -grad_log_det * slope
        grads = [torch.zeros_like(t), *(torch.zeros_like(h) for h in units[1:]), torch.zeros_like(y.flatten(0, 1))]
        given = [grad_out.T.contiguous(), scale, by_log_scale, constant]
        _backward(ctx.known, ctx.up, *map(_arrays, (given, weights, gates, grads)))
        found: list[Tensor | None] = [grads[0].T, None, None, None]
        for i, mask in enumerate(ctx.masks):
            above = grads[i + 1] if i + 1 == count else grads[i + 1][1:]
            found += [torch.mm(above, units[i][1:].T).mul_(mask), above.sum(1)]
        return tuple(found)


def _arrays(tensors: Sequence[Tensor]) -> list[Any]:
    """On a CPU the same memory as numpy's, whose small calls cost a fraction of torch's.

    Not while torch is asked to note what it does, as when floating-point operations are counted.
    """
    plain = all(x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) for x in tensors)
    if plain and not is_in_torch_dispatch_mode():
        return [x.detach().numpy() for x in tensors]
    return [x.detach() for x in tensors]


def _library(array: Any) -> Any:
    return torch if isinstance(array, Tensor) else np


def _forward(
    known: list[list[int]], up: bool, affine: list[Any], weights: list[Any], units: list[Any], dropped: list[Any]
) -> None:
    """Fill y, scale and units. known[i][k]: how many rows of layer i the first k dimensions complete."""
    (t, y, scale), last = affine, len(weights) - 1
    lib, largest = _library(t), LARGEST_LOG_SCALE if up else -LARGEST_LOG_SCALE
    zero = t[0, 0] * 0
    for k in range(len(t)):
        seen, (shift, tanh), s, out = known[last][k], y[k], scale[k], units[0][k + 1]
        lib.matmul(weights[last][2 * k : 2 * k + 2, :seen], units[last][:seen], out=y[k])
        lib.tanh(tanh, out=tanh)
        lib.multiply(tanh, largest, out=s)
        lib.exp(s, out=s)
        if up:
            lib.multiply(t[k], s, out=out)
            lib.add(out, shift, out=out)
        else:
            lib.subtract(t[k], shift, out=out)
            lib.multiply(out, s, out=out)
        for i in range(last):
            first, end, seen = known[i + 1][k], known[i + 1][k + 1], known[i][k + 1]
            if first < end:
                h = units[i + 1][first:end]
                lib.matmul(weights[i][first - 1 : end - 1, :seen], units[i][:seen], out=h)
                lib.maximum(h, zero, out=h)
                if dropped:
                    lib.multiply(h, dropped[i][first - 1 : end - 1], out=h)


def _backward(
    known: list[list[int]], up: bool, given: list[Any], weights: list[Any], gates: list[Any], grads: list[Any]
) -> None:
    """Fill grads: the first by `given`, then by what enters each hidden layer's ReLU, the last by the outputs."""
    (grad_out, scale, by_log_scale, constant), last = given, len(weights) - 1
    lib = _library(scale)
    for k in reversed(range(len(scale))):
        for i in range(last, -1, -1):  # what dimension k completes of layer i, from all that sees it
            first, end = (known[i][k], known[i][k + 1]) if i else (k + 1, k + 2)
            if first < end:
                from_row = 2 * k + 2 if i == last else known[i + 1][k]
                seen_by = weights[i][(from_row if i == last else from_row - 1) :, first:end]
                found = lib.matmul(seen_by.T, grads[i + 1][from_row:])
                if i:
                    lib.multiply(found, gates[i - 1][first:end], out=grads[i][first:end])
        g, of_y = found[0], grads[-1][2 * k : 2 * k + 2]
        lib.add(g, grad_out[k], out=g)
        lib.multiply(g, scale[k], out=grads[0][k])
        if up:
            of_y[0] = g
        else:
            lib.negative(grads[0][k], out=of_y[0])
        lib.multiply(g, by_log_scale[k], out=of_y[1])
        lib.add(of_y[1], constant[k], out=of_y[1])
