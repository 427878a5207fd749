"""The harness: trains, measures and compares generative image models, and writes the trilemma report.

import bench
frame = bench.run("quick", models=["vae"], budget="60s")   # a pandas frame, one row a measurement
found = bench.evaluate("samples/", "mnist")                # anyone's samples
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import run as run
    from bench.evaluation import evaluate as evaluate

__all__ = ["evaluate", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Loaded when first used, so that reports, which import `bench` too, load no torch."""
    if name == "run":
        return importlib.import_module("bench.api").run
    if name == "evaluate":
        return importlib.import_module("bench.evaluation").evaluate
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
