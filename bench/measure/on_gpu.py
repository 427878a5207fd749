"""What a GPU's numbers need said of them beside the common protocol.

Apart from `draw` and its parts, so that the keys of draws that a CPU made do not hang on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from baselines.types import Draw
from bench.measure.result import Measured

_ALLOCATED, _RESERVED, _PROCESS = "gpu_peak_allocated_bytes", "gpu_peak_reserved_bytes", "gpu_process_bytes"
_IN_A_POOL = "a CUDA graph replays in memory that it keeps, and torch counts none of it as allocated; reserved holds it"
_OF_ALL = "total less free: of all processes on the GPU, after the draw, since the driver does not tell this one's own"
_QUEUED_STEPS = 20  # between two looks at the loss, which wait for the GPU
_LOOKS_ELSEWHERE = 100  # rows of a training's curve, whose values are waited for outside the iterations


def completed(measured: Measured, draw: Draw) -> Measured:
    """The measurements of a draw as they are to be kept; those of a CPU as they are.

    Under a CUDA graph the peak of allocated memory means nothing, and is left out. Where the process's own figure is
    not to be had, `gpu_device_bytes` tells that of all processes together.
    """
    reserved = next((m for m in measured.measurements if m.metric == _RESERVED), None)
    if reserved is None:
        return measured
    kept, skipped = list(measured.measurements), dict(measured.skipped)
    if draw.options.get("graph") is True:
        kept = [m for m in kept if m.metric != _ALLOCATED]
        skipped[_ALLOCATED] = _IN_A_POOL
    if _PROCESS in skipped:
        free, total = torch.cuda.mem_get_info()
        kept.append(replace(reserved, metric="gpu_device_bytes", value=total - free, note=_OF_ALL))
    return Measured(tuple(kept), skipped, measured.raw)


def queued_share(steps: int) -> float:
    """The most of a training's work, 0 to 1, that a GPU may do outside the time of iterations.

    The trainer waits for the GPU at every 20th step and wherever it notes its curve; what is still queued there is
    waited for outside the iterations.
    """
    return min(1.0, _QUEUED_STEPS * _LOOKS_ELSEWHERE / max(steps, 1))


def precision() -> dict[str, Any]:
    """Whether float32 products may be computed in TF32, with 10 bits of mantissa, on a GPU that has it."""
    return {
        "matrix products": "TF32" if torch.backends.cuda.matmul.allow_tf32 else "float32",
        "convolutions": "TF32" if torch.backends.cudnn.allow_tf32 else "float32",
    }
