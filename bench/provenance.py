"""Where a record came from: commit, versions, device, threads, protocol version. Imports no torch of its own."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

PROTOCOL_VERSION = 1
"""Version of the measurement protocol as a whole; a metric's own version stands in its protocol."""

_PACKAGES = ("trilemma-bench", "torch", "torchvision", "torch-fidelity", "numpy", "scipy", "scikit-learn")
_SOURCES = ("bench", "baselines", "pyproject.toml", "constraints.txt")  # what can change a number


def collect(device: str = "cpu") -> dict[str, Any]:
    """Plain values, ready for JSON: no host name, no user, no path.

    Args:
        device: as given to torch. Its name and the thread count are read from torch only if that is imported.
    """
    return {
        **commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": _device(device),
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": threads(),
        "platform": platform.platform(),
        "protocol": PROTOCOL_VERSION,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def commit(near: Path | None = None) -> dict[str, Any]:
    """`commit` and `dirty` of the checkout whose sources run; None and a `commit_reason` where there is none.

    A package installed from a checkout counts as that checkout if its sources are the same, seen from the working
    directory. Dirty means: a source differs from the commit; results and documents do not count.

    Args:
        near: where to look for a checkout; by default where this package lies, then the working directory.
    """
    reason = "git is missing"
    for place in (near,) if near else (Path(__file__).parent, Path.cwd()):
        top = _git(place, "rev-parse", "--show-toplevel")
        if isinstance(top, OSError):
            continue
        reason = "no git checkout of the project here, or git refuses to read it"
        if top is None or not (Path(top) / "bench" / "provenance.py").is_file():
            continue
        if not _same_sources(Path(top)):
            reason = "the running sources differ from the checkout around them"
            continue
        head = _git(place, "rev-parse", "HEAD")
        if not isinstance(head, str):
            reason = "the checkout has no commit yet"
            continue
        changed = _git(Path(top), "status", "--porcelain", "--", *_SOURCES)
        return {"commit": head, "dirty": bool(changed)}
    return {"commit": None, "dirty": None, "commit_reason": reason}


def _git(place: Path, *arguments: str) -> str | OSError | None:
    """What git says; None if it refuses, the error if it cannot be run."""
    try:
        done = subprocess.run(["git", "-C", str(place), *arguments], capture_output=True, text=True, timeout=20)
    except OSError as error:
        return error
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _same_sources(top: Path) -> bool:
    here = Path(__file__).parent.parent
    if top.resolve() == here.resolve():
        return True
    ours, theirs = (_sources(root) for root in (here, top))
    return ours == theirs


def _sources(root: Path) -> dict[str, bytes]:
    found = (path for package in ("bench", "baselines") for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def cpu_model() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if asked.returncode == 0:
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int | None:
    """Torch's intra-operation threads; None where torch is not imported."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _device(device: str) -> str:
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name(device))
    return device
