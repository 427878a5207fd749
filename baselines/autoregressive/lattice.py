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
    """One step's hidden and cell states (..., h) by eq. 3, from its gates (..., 4 h) and the cell states before.

    The gates are overwritten.
    """
    output, forget, write, content = _activate(gates).chunk(4, -1)
    cell = torch.addcmul(write * content, forget, cell)
    return output * _tanh(cell, out=torch.empty_like(cell)), cell


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

    @staticmethod
    def forward(gates: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        *outer, size = *gates.shape[:3], gates.shape[3] // 4
        seen = gates.new_empty(*outer, weight.shape[1])  # the neighbours' h, as the convolution takes them
        before = gates.new_zeros(*outer, size)  # the cell states that go on
        act = gates.new_empty(gates.shape)
        shown, hidden = torch.empty_like(before), torch.empty_like(before)  # tanh(c), h
        cell = before
        for step, previous in _with_previous(plan):
            now = slice(step.begin, step.end)
            _look(seen, hidden, step, previous)
            if previous is not None:
                to, of = step.reach(step.cell, previous)
                before[:, to] = cell[:, of.start - previous.begin : of.stop - previous.begin]
            for given, states, state_to_state, out in zip(gates, seen, weight, act, strict=True):
                torch.addmm(
                    given[now].flatten(0, 1), states[now].flatten(0, 1), state_to_state, out=out[now].flatten(0, 1)
                )
            activated = _activate(act[:, now])
            output, forget, write, content = activated.chunk(4, -1)
            cell = torch.addcmul(write * content, forget, before[:, now])
            _tanh(cell, out=shown[:, now])
            torch.mul(output, shown[:, now], out=hidden[:, now])
        return hidden, seen, act, before, shown

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, ctx.plan = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(weight, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*_LatticeGradient.apply(grads[0], *ctx.saved_tensors, ctx.plan), None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _one_by_one(_Lattice, info, in_dims, arguments)


class _LatticeGradient(torch.autograd.Function):
    """Step by step from the last. It has no gradient of its own, so that asking for a second derivative is an error."""

    @staticmethod
    def forward(
        grad: Tensor,
        weight: Tensor,
        hidden: Tensor,
        seen: Tensor,
        act: Tensor,
        before: Tensor,
        shown: Tensor,
        plan: Plan,
    ) -> tuple[Tensor, Tensor]:
        size, back = hidden.shape[-1], weight.transpose(1, 2).contiguous()
        to_output, to_cell, to_gates, forget = _factors(hidden, act, before, shown)
        of_hidden, of_cell = grad.clone(memory_format=torch.contiguous_format), torch.zeros_like(hidden)
        of_gates, reached = torch.empty_like(act), torch.empty_like(seen)
        for step, previous in reversed(list(_with_previous(plan))):
            now = slice(step.begin, step.end)
            inner, found = of_cell[:, now], of_gates[:, now]
            inner.addcmul_(of_hidden[:, now], to_cell[:, now])
            torch.mul(of_hidden[:, now], to_output[:, now], out=found[..., :size])
            threefold = found[..., size:].view(*found.shape[:3], 3, size)
            torch.mul(inner.unsqueeze(-2), to_gates[:, now], out=threefold)
            if previous is None:
                break
            for given, weights, out in zip(of_gates, back, reached, strict=True):
                torch.mm(given[now].flatten(0, 1), weights, out=out[now].flatten(0, 1))
            for tap in range(len(step.taps)):
                to, of = step.reach(tap, previous)
                of_hidden[:, of] += reached[:, to, :, tap * size : (tap + 1) * size]
            to, of = step.reach(step.cell, previous)
            torch.mul(of_cell[:, to], forget[:, to], out=of_cell[:, of])
        return of_gates, seen.flatten(1, 2).transpose(1, 2) @ of_gates.flatten(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        return _one_by_one(_LatticeGradient, info, in_dims, arguments)


def _look(seen: Tensor, hidden: Tensor, step: Step, previous: Step | None) -> None:
    """Write what the taps of a step's pixels show: states of the step before, and 0 off the image."""
    size = hidden.shape[-1]
    if previous is None:
        seen[:, step.begin : step.end] = 0
        return
    for tap in range(len(step.taps)):
        to, of = step.reach(tap, previous)
        shown = seen[..., tap * size : (tap + 1) * size]
        shown[:, to] = hidden[:, of]
        shown[:, step.begin : to.start] = 0
        shown[:, to.stop : step.end] = 0


def _activate(gates: Tensor) -> Tensor:
    """sigmoid(o, f, i), tanh(g), in place."""
    content = gates[..., 3 * (gates.shape[-1] // 4) :]
    content.mul_(2)
    gates.sigmoid_()
    content.mul_(2).sub_(1)
    return gates


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    """By the sigmoid, since torch's own tanh takes ten times as long on a CPU."""
    return torch.mul(x, 2, out=out).sigmoid_().mul_(2).sub_(1)


def _factors(hidden: Tensor, act: Tensor, before: Tensor, shown: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dh/do, dh/dc, dc/d(f, i, g) (..., 3, h) before the activations, and f."""
    output, forget, write, content = act.chunk(4, -1)
    to_gates = act.new_empty(*act.shape[:3], 3, hidden.shape[-1])
    kept, written = before * forget, write * content
    torch.addcmul(kept, kept, forget, value=-1, out=to_gates[..., 0, :])
    torch.addcmul(written, written, write, value=-1, out=to_gates[..., 1, :])
    torch.addcmul(write, written, content, value=-1, out=to_gates[..., 2, :])
    return (
        torch.addcmul(hidden, hidden, output, value=-1),
        torch.addcmul(output, hidden, shown, value=-1),
        to_gates,
        forget,
    )


def _one_by_one(function: Any, info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """A function mapped over a dimension, one call each."""
    found = []
    for index in range(info.batch_size):
        chosen = [a.select(d, index) if isinstance(d, int) else a for a, d in zip(arguments, in_dims, strict=True)]
        found.append(function.apply(*chosen))
    return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])


def _with_previous(plan: Plan) -> Iterator[tuple[Step, Step | None]]:
    return zip(plan, (None, *plan[:-1]), strict=True)
