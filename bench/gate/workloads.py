"""The gate's own workloads: a draw, a step, a likelihood, a metric's kernel, an import, a report; small and seeded.

Loaded by its path beside the code of either tree: at the top it imports the standard library alone, and each workload
imports what it times. A workload is `make(device)`, which gives the call to time (None: nothing to time) and the
deterministic counters of one such call. What one tree lacks is an error there, which the gate tells as "new".
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

Made = tuple[Callable[[], object] | None, Mapping[str, float]]
Make = Callable[[str], Made]

_RECORDS = Path(__file__).parents[2] / "results" / "reference"  # the head's, on both sides
_STEPS = 3  # of training


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def _model(name: str, device: str) -> Any:
    """An untrained model on images of digits' shape, weights by seed 0 from one small normal distribution.

    Weights that an initialisation set to 0 are moved too: products with 0 could be skipped, and flow layers would be
    the identity.
    """
    import torch

    from baselines import registry
    from baselines.types import ImageShape

    entry = registry.load(name).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = entry.build(ImageShape(1, 8, 8, 17), entry.config())
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    return model.eval().to(device)


def _peak(run: Callable[[], object], device: str) -> dict[str, float]:
    """Peak bytes that PyTorch's allocator gave out during one warm call; nothing without a GPU."""
    if not device.startswith("cuda"):
        return {}
    import torch

    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return {"peak_allocated_bytes": float(torch.cuda.max_memory_allocated())}


def _work(model: Any, run: Callable[[], object], device: str) -> dict[str, float]:
    """Parameters, FLOPs of one call by PyTorch's counter, network calls (NFE) where the model names its network."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    network = getattr(model, "network", None)
    handle = None if network is None else model.get_submodule(network).register_forward_pre_hook(count)
    fused: Any = torch.backends.mkldnn
    enabled, fused.enabled = fused.enabled, False  # its fused LSTM hides what it computes
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        fused.enabled = enabled
        if handle is not None:
            handle.remove()
    counters = {"parameters": sum(p.numel() for p in model.parameters()), "flops": counter.get_total_flops()}
    return {name: float(n) for name, n in (counters | ({"nfe": calls} if network else {})).items()}


def _counted(model: Any, run: Callable[[], object], device: str) -> Made:
    run()
    return run, _work(model, run, device) | _peak(run, device)


def draw(name: str, n: int, device: str, **setting: Any) -> Made:
    """n images of one model; setting: sampler, steps and the like."""
    import torch

    from baselines.contract import Noise
    from baselines.types import Draw

    torch.set_num_threads(1)
    model = _model(name, device)

    @torch.no_grad()
    def run() -> object:
        return model.sample(n, Draw(**setting), Noise(0, device=device))

    return _counted(model, run, device)


def likelihood(name: str, which: str, n: int, device: str) -> Made:
    """Nats of n seeded images under one model."""
    import torch

    from baselines.contract import Noise
    from baselines.data.likelihood import image_nats

    torch.set_num_threads(1)
    model = _model(name, device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(17, (n, 1, 8, 8), generator=generator, dtype=torch.uint8).to(device)

    @torch.no_grad()
    def run() -> object:
        return image_nats(model, images, which, Noise(0, device=device))

    return _counted(model, run, device)


def training(name: str, device: str) -> Made:
    """A run of the standard trainer on digits, from its start to its checkpoint."""
    import torch

    from baselines import registry, trainer
    from baselines.config import build_config
    from baselines.data import digits
    from baselines.types import Budget

    torch.set_num_threads(1)
    data, entry = digits.load(), registry.load(name).model
    quiet = {"training.validations": 1, "training.validation_images": 1, "training.batch_size": 32}
    config = build_config(entry.config, quiet, name)

    def run() -> object:
        model = trainer.build(entry, data.shape, config, seed=0).to(device)
        with tempfile.TemporaryDirectory() as folder:
            return trainer.Trainer(model, data, 0, Budget(images=32 * _STEPS), Path(folder)).run()

    return run, _peak(run, device)


def kernel(module: str, name: str, n: int, d: int, device: str) -> Made:
    """One of the metrics' kernels on n generated and n real points in d dimensions; they run on the CPU."""
    import importlib

    import numpy as np

    function = getattr(importlib.import_module(f"bench.metrics.{module}"), name)
    rng = np.random.default_rng(0)
    spectrum = 1 / np.sqrt(np.arange(1, d + 1))
    real, generated = (rng.normal(size=(n, d)) * spectrum + 0.3 for _ in range(2))
    return partial(function, real=real, generated=generated), {}


def terminal_table(device: str) -> Made:
    """The table that a run ends with, from the committed records."""
    from rich.console import Console

    from bench.report import render_terminal_table

    return lambda: Console(file=None, quiet=True).print(render_terminal_table(_RECORDS)), {}


def page(device: str) -> Made:
    """A whole report with its figures, from the committed records."""
    from bench.report import write_report

    def run() -> object:
        with tempfile.TemporaryDirectory() as folder:
            return write_report(_RECORDS, Path(folder)).stat().st_size

    return run, {}


def importing(module: str, device: str, timed: bool = False) -> Made:
    """How many modules an import brings in, and where `timed`, how long it takes in a fresh interpreter."""
    code = f"import sys; before = set(sys.modules); import {module}; print(len(set(sys.modules) - before))"

    def run() -> int:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode != 0:
            raise ImportError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
        return int(done.stdout)

    return (run if timed else None), {"modules": float(run())}


_SMALL: dict[str, Make] = {
    "draw vae": partial(draw, "vae", 16),
    "draw dcgan": partial(draw, "dcgan", 4),
    "draw pixelcnn": partial(draw, "pixelcnn", 1),
    "draw realnvp": partial(draw, "realnvp", 16),
    "draw ddpm, ddim S=4": lambda device: draw("ddpm", 1, device, sampler="ddim", steps=4),
    "likelihood realnvp": partial(likelihood, "realnvp", "dequantised", 32),
    "train vae": partial(training, "vae"),
    "metric: Fréchet distance": partial(kernel, "frechet", "frechet_distance", 500, 64),
    "metric: kernel distance": partial(kernel, "kernel", "kernel_distance", 500, 64),
    "metric: precision to coverage": partial(kernel, "manifold", "all_four", 500, 64),
    "report: terminal table": terminal_table,
}
_LARGE: dict[str, Make] = {
    "train dcgan": partial(training, "dcgan"),
    "train realnvp": partial(training, "realnvp"),
    "train ddpm": partial(training, "ddpm"),
    "train pixelcnn": partial(training, "pixelcnn"),
    "likelihood vae": partial(likelihood, "vae", "elbo", 64),
    "likelihood pixelcnn": partial(likelihood, "pixelcnn", "exact", 64),
    "likelihood maf": partial(likelihood, "maf", "dequantised", 64),
    "metric: Fréchet distance, N < d": partial(kernel, "frechet", "frechet_distance", 300, 512),
    "metric: kernel distance, N=2000": partial(kernel, "kernel", "kernel_distance", 2000, 64),
    "metric: precision to coverage, N=2000": partial(kernel, "manifold", "all_four", 2000, 64),
    "report: page": page,
}


def _imports(module: str, timed: bool) -> Make:
    return partial(importing, module, timed=timed)


_IMPORTS: dict[str, Make] = {f"import {m}": _imports(m, False) for m in ("bench.report.terminal", "bench.cli")}
_TIMED_IMPORTS: dict[str, Make] = {
    f"import {m}, in a fresh process": _imports(m, True) for m in ("bench.report", "bench.cli", "baselines.contract")
}
_OTHER_DRAWS = {
    name: partial(draw, name, 4)
    for name in (
        *("ae", "aae", "gan", "wgan_gp", "sngan_hinge", "infogan", "progan"),
        *("fvsbn", "nade", "made", "gated_pixelcnn", "pixelcnnpp", "pixelrnn_row", "pixelrnn_diagonal"),
        *("glow", "maf", "iaf", "wavenet"),
    )
}

_TINY: dict[str, Make] = {  # a fraction of a millisecond, so that 20 calls against 23 are still a short round
    "draw ddpm, ddim S=1": lambda device: draw("ddpm", 1, device, sampler="ddim", steps=1),
    "metric: Fréchet distance, N=100": partial(kernel, "frechet", "frechet_distance", 100, 16),
}

WORKLOADS: dict[str, Make] = {
    **_SMALL,
    **_IMPORTS,
    **_LARGE,
    **_TIMED_IMPORTS,
    **{f"draw {name}": make for name, make in _OTHER_DRAWS.items()},
    **_TINY,
}
SUITES: dict[str, tuple[str, ...]] = {
    "short": (*_SMALL, *_IMPORTS),
    "full": tuple(WORKLOADS),
    "self-test": tuple(_TINY),
}
