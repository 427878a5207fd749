"""Peak memory of one draw, in a pass of its own: the host's from the kernel's high-water mark, the GPU's from torch.

Linux resets a process's VmHWM to its present size when "5" is written to /proc/self/clear_refs (proc(5)), so the
kernel itself keeps the peak of what follows: nothing is sampled, and no spike is short enough to be missed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.measure.result import Measured
from bench.measure.workload import Workload
from bench.record import Measurement

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_GPU = "gpu_peak_allocated_bytes", "gpu_peak_reserved_bytes", "gpu_process_bytes"
_RESET_SLACK = 1 << 20  # VmHWM may exceed VmRSS by so much right after a reset that worked


@dataclass(frozen=True)
class HostPeak:
    """The peak resident memory of this process while something ran."""

    baseline_bytes: int  # resident before
    peak_bytes: int

    @property
    def rise_bytes(self) -> int:
        """What the call needed beyond what was there."""
        return self.peak_bytes - self.baseline_bytes


def keep_freed_memory() -> None:
    """Let this process reuse the memory that tensors free, where the C library can be told so (glibc).

    By default it hands every large block back to the kernel, which must then clear fresh pages for each layer's
    output: a quarter of a small U-Net's time at a large batch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def host_peak(call: Callable[[], T], process: Path = Path("/proc/self")) -> tuple[T, HostPeak | str]:
    """Run the call; its peak in host memory, or the reason why this system does not tell.

    Free memory that the allocator holds is given back first: a call that reuses it would seem to need none.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    try:
        (process / "clear_refs").write_text("5")
        before = _status(process)
    except (OSError, KeyError) as error:
        return call(), f"the system keeps no peak that can be reset ({type(error).__name__} at /proc/self)"
    if before["VmHWM"] > before["VmRSS"] + _RESET_SLACK:
        return call(), "the system ignores a reset of the peak (VmHWM stayed)"
    result = call()
    return result, HostPeak(before["VmRSS"], _status(process)["VmHWM"])


def _status(process: Path) -> dict[str, int]:
    """VmRSS and VmHWM in bytes.

    Raises:
        KeyError: if the status has no such lines.
    """
    lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    return {name: int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}


def sample_memory(workload: Workload, batch: int, first: int = 0) -> tuple[Tensor, Measured]:
    """Draw images first .. first + batch - 1 while watching memory alone; nothing is timed.

    A draw at this batch should have been made before: what is built or tuned once is no part of a draw's need.

    Returns:
        The images, uint8 (batch, C, H, W), which are those of any other pass; and `host_peak_bytes` (beyond what was
        resident before), `host_peak_bytes[process]` (in all), `gpu_peak_allocated_bytes`,
        `gpu_peak_reserved_bytes`, `gpu_process_bytes`. Where only the peak of the process's whole life is known
        it is called `host_peak_bytes[lifetime]`.
    """
    if workload.refusal:
        metrics = ("host_peak_bytes", "host_peak_bytes[process]", *_GPU)
        reason = "replays data: what it holds means nothing"
        return workload.images(batch, first), Measured(skipped=dict.fromkeys(metrics, reason))
    protocol = workload.protocol(batch)
    cuda = workload.device.type == "cuda"
    held = _reset_gpu(workload.device) if cuda else 0
    images, peak = host_peak(lambda: workload.images(batch, first))
    host = _host(peak, protocol)
    gpu = _gpu(workload.device, held, protocol) if cuda else Measured(skipped=dict.fromkeys(_GPU, "no GPU"))
    return images, Measured(host.measurements + gpu.measurements, {**host.skipped, **gpu.skipped})


def _host(peak: HostPeak | str, protocol: Mapping[str, Any]) -> Measured:
    if isinstance(peak, str):
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB elsewhere
        life = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        note = "of the process's whole life, training and timing included"
        return Measured(
            (_bytes("host_peak_bytes[lifetime]", life, protocol, note),),
            dict.fromkeys(("host_peak_bytes", "host_peak_bytes[process]"), peak),
        )
    return Measured(
        (
            _bytes("host_peak_bytes", peak.rise_bytes, protocol, "beyond what was resident before the draw"),
            _bytes("host_peak_bytes[process]", peak.peak_bytes, protocol, "imports and weights included"),
        )
    )


def _reset_gpu(device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _gpu(device: torch.device, held: int, protocol: Mapping[str, Any]) -> Measured:
    torch.cuda.synchronize(device)
    allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    process = gpu_process_bytes()
    known = not isinstance(process, str)
    measurements = [
        _bytes(_GPU[0], allocated, protocol, f"of which {held} B were held before the draw (weights)"),
        _bytes(_GPU[1], reserved, protocol, "by torch's caching allocator"),
    ]
    if known:
        measurements.append(_bytes(_GPU[2], int(process), protocol, "by the driver, right after the draw"))
    return Measured(tuple(measurements), {} if known else {_GPU[2]: str(process)})


def _nvidia_smi() -> str:
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout


def gpu_process_bytes(query: Callable[[], str] = _nvidia_smi, pid: int | None = None) -> int | str:
    """GPU memory of this process as the driver counts it (context included), or why it is not known.

    Args:
        query: gives lines of `pid, MiB`; nvidia-smi by default, which asks NVML.
        pid: the process; this one by default.
    """
    try:
        lines = query().strip().splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi did not answer ({type(error).__name__})"
    wanted = str(os.getpid() if pid is None else pid)
    used = [mib.strip() for owner, _, mib in (line.partition(",") for line in lines) if owner.strip() == wanted]
    if not used:
        return "nvidia-smi lists no process of this id (a container hides it)"
    if not all(mib.isdigit() for mib in used):
        return f"nvidia-smi gives no memory per process here ({used[0]})"
    return sum(map(int, used)) * 2**20


def _bytes(metric: str, value: int, protocol: Mapping[str, Any], note: str) -> Measurement:
    return Measurement(metric, value, "B", "lower", 1, "draw", protocol=protocol, note=note)
