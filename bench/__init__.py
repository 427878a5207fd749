"""The harness: trains, measures and compares generative image models, and writes the trilemma report.

import bench
frame = bench.run("quick", models=["vae"], budget="60s")   # a pandas frame, one row a measurement
found = bench.evaluate("samples/", "mnist")                # anyone's samples
found = bench.path_length(generator, latent=128)           # anyone's generator
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import run as run
    from bench.evaluation import evaluate as evaluate
    from bench.generator import path_length as path_length

__all__ = ["evaluate", "path_length", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loaded when first used, so that reports, which import `bench` too, load no torch."""
    if name == "run":
        return importlib.import_module("bench.api").run
    if name == "evaluate":
        return importlib.import_module("bench.evaluation").evaluate
    if name == "path_length":
        return importlib.import_module("bench.generator").path_length
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
