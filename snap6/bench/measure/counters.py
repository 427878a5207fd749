"""Deterministic work counters: parameters, FLOPs of one network forward, executed network calls (NFE)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from baselines.types import Draw
from bench.measure.result import VERSION, Measured
from bench.measure.workload import Calls, capture_calls
from bench.record import Measurement

__all__ = ["capture_calls", "forward_flops", "parameters", "work"]

_COUNTED = "2 per multiply-add of matrix products, convolutions and attention; element-wise work is not counted"


def parameters(model: nn.Module) -> Measured:
    """`parameters` and `parameters[trainable]`, with scope train; a shared parameter counts once."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = sum(b.numel() for b in model.buffers())
    note = f"and {buffers} numbers in buffers" if buffers else ""
    protocol = {"version": VERSION}
    return Measured(
        (
            Measurement("parameters", total, "", "none", 1, "train", protocol=protocol, note=note),
            Measurement("parameters[trainable]", trainable, "", "none", 1, "train", protocol=protocol),
        )
    )


def work(draw: Draw, calls: Calls) -> Measured:
    """`nfe` of one image, `flops[forward]` of one network call and `flops[image]` of all of them.

    Args:
        draw: what was asked for; the note sets its steps beside the executed calls.
        calls: the network calls of one draw of one image.
    """
    if calls.missing is not None:
        return Measured(skipped=dict.fromkeys(("nfe", "flops[forward]", "flops[image]"), calls.missing))
    asked = "the sampler's own number of" if draw.steps is None else str(draw.steps)
    note = f"{asked} steps requested, {calls.count} calls of {calls.name!r} executed"
    nfe = Measurement("nfe", calls.count, "", "lower", 1, "draw", protocol={"version": VERSION}, note=note)
    if calls.unlike is not None:
        return Measured((nfe,), dict.fromkeys(("flops[forward]", "flops[image]"), calls.unlike))
    flops = forward_flops(calls)
    protocol = {"batch": 1, "counted": _COUNTED, "version": VERSION}
    forward = Measurement("flops[forward]", flops, "", "lower", 1, "draw", protocol=protocol)
    image = Measurement(
        "flops[image]",
        flops * calls.count,
        "",
        "lower",
        1,
        "draw",
        protocol=protocol,
        note="flops[forward] x nfe",
    )
    return Measured((nfe, forward, image))


def forward_flops(calls: Calls) -> int:
    """FLOPs of the network on the kept inputs, by torch.utils.flop_counter."""
    with _unfused(), FlopCounterMode(display=False) as counter:
        calls.forward()
    return int(counter.get_total_flops())


@contextmanager
def _unfused() -> Iterator[None]:
    """Without the fused LSTM and attention kernels, which the counter does not see into: it reads 0 there."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [backend.enabled for backend in backends]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for backend in backends:
            backend.enabled = False
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        for backend, enabled in zip(backends, before, strict=True):
            backend.enabled = enabled
        torch.backends.mha.set_fastpath_enabled(fast_path)
