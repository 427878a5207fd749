"""LSTM recursions over the pixels of an image, many pixels a step (van den Oord et al. 2016, arXiv:1601.06759, eq. 3).

A recursion goes through the pixels in steps; all pixels of a step are computed at once, from their neighbours in the
step before. With the pixels laid out step by step, and features last, every step reads and writes contiguous memory
and is one matrix product for each direction. The gradient is written out by hand: the state-to-state weights get
theirs in one product over all pixels, not in one for each step.

[o, f, i, g] = K_is x + K_ss h_before;  c = sigmoid(f) c_before + sigmoid(i) tanh(g);  h = sigmoid(o) tanh(c)   (eq. 3)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Step:
    """Pixels begin .. end - 1 of a recursion's order, which are computed at once.

    Tap k of the state-to-state convolution gives the step's j-th pixel the j + taps[k]-th of the step before, if that
    step has one; off the image all states are 0. Tap `cell` is the pixel whose cell state goes on.
    """

    begin: int
    end: int
    taps: tuple[int, ...]
    cell: int

    def reach(self, tap: int, before: Step) -> tuple[slice, slice]:
        """The places of this step's pixels that have such a neighbour, and of the neighbours, in the whole order."""
        shift = self.taps[tap]
        first = max(0, -shift)
        last = max(first, min(self.end - self.begin, before.end - before.begin - shift))
        begin = before.begin + shift
        return slice(self.begin + first, self.begin + last), slice(begin + first, begin + last)


Plan = tuple[Step, ...]


def rows(height: int, width: int) -> Plan:
    """Row by row, with the three nearest pixels of the row above (sec. 3.1)."""
    return tuple(Step(row * width, (row + 1) * width, (-1, 0, 1), cell=1) for row in range(height))


def diagonals(height: int, width: int) -> Plan:
    """Diagonal by diagonal of pixels with equal row + column, with the pixels to the left and above (sec. 3.2).

    It is the paper's map with each row shifted by one more place, without the places that the shift leaves empty.
    The order within a diagonal is that of the rows.
    """
    steps: list[Step] = []
    lowest_before = 0
    for diagonal in range(height + width - 1):
        lowest, highest = max(0, diagonal - width + 1), min(height - 1, diagonal)
        begin = steps[-1].end if steps else 0
        left = lowest - lowest_before
        steps.append(Step(begin, begin + highest - lowest + 1, (left, left - 1), cell=0))
        lowest_before = lowest
    return tuple(steps)


def diagonal_order(height: int, width: int, flipped: bool = False) -> Tensor:
    """int64 (H W,): row W + column of the k-th pixel of `diagonals`; flipped: of those from the right edge."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    from_edge = width - 1 - column if flipped else column
    return ((row + from_edge) * height + row).flatten().argsort()


def lattice_lstm(gates: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """The hidden states (D, P, B, h) of eq. 3 in D directions at once.

    gates: (D, P, B, 4 h), the input-to-state part of o, f, i and g, the P pixels in the plan's order.
    weight: (D, taps h, 4 h), the state-to-state convolution.
    """
    hidden: Tensor = _Lattice.apply(gates, weight, plan)[0]
    return hidden


def lstm(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One pixel's hidden and cell state (..., h) by eq. 3, from its gates (..., 4 h) and the cell state before."""
    size = cell.shape[-1]
    output, forget, write = gates[..., : 3 * size].sigmoid().chunk(3, -1)
    cell = torch.addcmul(write * gates[..., 3 * size :].tanh(), forget, cell)
    return output * cell.tanh(), cell


def arranged(x: Tensor, orders: Tensor, places: Tensor) -> Tensor:
    """x (P, ...) in each of D orders (D, P): (D, P, ...). places (D, P): the inverse permutations."""
    found: Tensor = _Arranged.apply(x, orders, places)
    return found


class _Arranged(torch.autograd.Function):
    """Its gradient is gathered too, where that of an index alone would be scattered and added."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, orders: Tensor, places: Tensor) -> Tensor:
        return x.index_select(0, orders.flatten()).view(*orders.shape, *x.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        back = [part.index_select(0, place) for part, place in zip(grad, places, strict=True)]
        return sum(back[1:], back[0]), None, None


class _Lattice(torch.autograd.Function):
    """Beside the hidden states it returns what its gradient needs: what each pixel saw, its gates and cell states."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gates: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        directions, pixels, batch, size = *gates.shape[:3], gates.shape[3] // 4
        seen = gates.new_zeros(directions, pixels, batch, weight.shape[1])
        before = gates.new_zeros(directions, pixels, batch, size)  # the cell states that go on
        act = torch.empty_like(gates, memory_format=torch.contiguous_format)
        cell, shown, hidden = (torch.empty_like(before) for _ in range(3))
        for step, previous in _with_previous(plan):
            now = slice(step.begin, step.end)
            for tap in range(len(step.taps)) if previous else ():
                to, of = step.reach(tap, previous)
                seen[:, to, :, tap * size : (tap + 1) * size] = hidden[:, of]
                if tap == step.cell:
                    before[:, to] = cell[:, of]
            for d in range(directions):
                rows_of = (tensor[d, now].flatten(0, 1) for tensor in (gates, seen, act))
                given, states, out = rows_of
                torch.addmm(given, states, weight[d], out=out)
            act[:, now, :, : 3 * size].sigmoid_()
            act[:, now, :, 3 * size :].tanh_()
            output, forget, write, content = act[:, now].chunk(4, -1)
            torch.mul(write, content, out=cell[:, now]).addcmul_(forget, before[:, now])
            torch.tanh(cell[:, now], out=shown[:, now])
            torch.mul(output, shown[:, now], out=hidden[:, now])
        return hidden, seen, act, before, shown

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, ctx.plan = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Step by step from the last; nothing is written in place, so that it can be mapped over many gradients."""
        weight, seen, act, before, shown = ctx.saved_tensors
        plan, back = ctx.plan, weight.transpose(1, 2)
        output, forget, write, content = act.chunk(4, -1)
        to_output = shown * output * (1 - output)  # d hidden / d o; below: d cell / d (f, i, g), d hidden / d cell
        factors = (before * forget * (1 - forget), content * write * (1 - write), write * (1 - content * content))
        to_gates = torch.cat(factors, -1)
        to_cell = output * (1 - shown * shown)
        found: list[Tensor] = []
        of_hidden, of_cell = grads[0][:, plan[-1].begin : plan[-1].end], None
        for step, previous in reversed(list(_with_previous(plan))):
            now = slice(step.begin, step.end)
            inner = of_hidden * to_cell[:, now]
            inner = inner if of_cell is None else inner + of_cell
            threefold = torch.cat((inner, inner, inner), -1) * to_gates[:, now]
            found.append(torch.cat((of_hidden * to_output[:, now], threefold), -1))
            if previous:
                reached = (found[-1].flatten(1, 2) @ back).view(len(back), step.end - step.begin, -1, back.shape[2])
                of_hidden = grads[0][:, previous.begin : previous.end]
                for tap, part in enumerate(reached.chunk(len(step.taps), -1)):
                    of_hidden = of_hidden + _handed_back(part, step, previous, tap)
                of_cell = _handed_back(inner * forget[:, now], step, previous, step.cell)
        of_gates = torch.cat(found[::-1], 1)
        of_weight = seen.flatten(1, 2).transpose(1, 2) @ of_gates.flatten(1, 2)
        return of_gates, of_weight, None


def _handed_back(grad: Tensor, step: Step, previous: Step, tap: int) -> Tensor:
    """What a tap's gradient (D, step, B, h) is to the pixels of the step before, (D, previous, B, h)."""
    to, of = step.reach(tap, previous)
    kept = grad[:, to.start - step.begin : to.stop - step.begin]
    margins = (of.start - previous.begin, previous.end - of.stop)
    return kept if margins == (0, 0) else F.pad(kept, (0, 0, 0, 0, *margins))


def _with_previous(plan: Plan) -> Iterator[tuple[Step, Any]]:
    return zip(plan, (None, *plan[:-1]), strict=True)
