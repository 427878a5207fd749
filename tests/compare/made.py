"""Made-up records for the tests of comparisons: every number is synthetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines.types import Budget, Draw
from bench import store
from bench.record import Cell, Measurement, Record

PROTOCOL: Mapping[str, Any] = {"split": "test", "extractor": "cnn", "version": 1}
PROVENANCE: Mapping[str, Any] = {
    "commit": "a" * 40,
    "dirty": False,
    "device": "cpu",
    "cpu": "Synthetic CPU",
    "threads": 1,
    "versions": {"torch": "2.15.0"},
    "time": "2026-01-01T00:00:00+00:00",
}


def fd(value: float, low: float | None = None, high: float | None = None, n: int = 1000, **other: Any) -> Measurement:
    return Measurement("fd[cnn]", value, "", "lower", n, "draw", low, high, protocol={**PROTOCOL, **other})


def coverage(value: float, **other: Any) -> Measurement:
    return Measurement("coverage[cnn]", value, "", "higher", 1000, "draw", protocol={**PROTOCOL, **other})


def rate(value: float, device: str = "Synthetic CPU", batch: int = 64, torch: str = "2.15.0") -> Measurement:
    protocol = {"device": device, "threads": 1, "batch": batch, "torch": torch}
    width = 1e-4 * value
    return Measurement(
        "images_per_s", value, "images/s", "higher", 5, "draw", value - width, value + width, None, protocol
    )


def nfe(value: float) -> Measurement:
    return Measurement("nfe", value, "", "lower", 1, "draw", protocol={"version": 1})


def bits(value: float, name: str = "elbo", kind: Any = "upper_bound", **other: Any) -> Measurement:
    protocol = {"split": "test", "n_real": 100, **other}
    return Measurement(f"bits_per_dim[{name}]", value, "bits/dim", "lower", 100, "train", None, None, kind, protocol)


def record(
    model: str,
    seed: int,
    *measured: Measurement,
    draw: Draw | None = Draw(),  # noqa: B008 - it is frozen
    config: Mapping[str, Any] | None = None,
    budget: int = 100,
    error: str = "",
    dataset: str = "digits",
    **provenance: Any,
) -> Record:
    """A record of one cell; a model's training where draw is None. provenance: instead of PROVENANCE's."""
    cell = Cell(model, dataset, Budget(images=budget), seed, {"lr": 0.1} if config is None else config, draw)
    key = f"{cell.label()} {cell.config} {budget} {sorted(provenance.items())}"
    status = "failed" if error else "ok"
    told = {**PROVENANCE, **provenance}
    return Record(key, f"{model}{seed}", status, cell, measured, error=error, provenance=told)  # type: ignore[arg-type]


def folder(where: Path, name: str, *records: Record) -> Path:
    """A results folder that holds these records."""
    for held in records:
        store.append(where / name, held)
    return where / name
