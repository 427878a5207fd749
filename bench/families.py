"""Which metrics a record answers, and under which key: each is remade only when its own code or inputs change."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from baselines.config import nearest
from baselines.data.dataset import Dataset
from baselines.errors import UserError
from baselines.types import ImageShape
from bench import keys
from bench.job import Setup
from bench.metrics import catalogue
from bench.metrics.base import Extractor, Subject
from bench.metrics.extractors import choose_extractor
from bench.metrics.over_training import OverTraining
from bench.metrics.path_length import PathLength, distance_key
from bench.record import Measurement, Scope


def open_extractor(dataset: Dataset, setup: Setup) -> tuple[Extractor | None, str]:
    """The extractor in whose features this run compares this data set's images, or why there is none.

    Raises:
        UserError: if one is asked for that cannot be had.
    """
    return _extractor(dataset.name, dataset.shape, setup.extractor, setup.weights, setup.device)


@cache
def _extractor(
    name: str, shape: ImageShape, requested: str | None, weights: Path | None, device: str
) -> tuple[Extractor | None, str]:
    return choose_extractor(name, shape, requested, weights, device)


def forget_opened() -> None:
    """Read weights anew."""
    _extractor.cache_clear()


def family_keys(dataset: Dataset, setup: Setup, latent: bool, snapshots: bool = False) -> dict[Scope, dict[str, str]]:
    """Per scope, the key of each metric family that the run takes: its source, and for features the extractor.

    latent: whether the model has a latent space. Path lengths are of no other model, and whatever they depend on must
    not have its likelihoods, which the same record holds, taken again.
    snapshots: whether images are drawn during its training, whose features are of no other model either.

    Raises:
        UserError: if the run asks for a family that there is not.
    """
    known = catalogue.names()
    for name in setup.metrics or ():
        if name not in known:
            raise UserError(f"measure.metrics: no metric {name!r}{nearest(name, known)}")
    extractor, reason = open_extractor(dataset, replace(setup, device="cpu"))  # only its identity is wanted
    seen = reason if extractor is None else {"name": extractor.name, **extractor.identity()}
    found: dict[Scope, dict[str, str]] = {
        "train": {"counters": keys.source_key(["bench.measure.counters"], ("bench",))},
        "draw": {"sampling": keys.source_key(["bench.measure.draw", "bench.measure.density"], ("bench",))},
    }
    for metric in catalogue.METRICS:
        if setup.metrics is not None and metric.name not in setup.metrics:
            continue
        inputs: Any = seen if metric.scope == "draw" else ""
        code = catalogue.code_key(metric)
        if isinstance(metric, PathLength):
            code, inputs = (code, distance_key(extractor)) if latent else ("", "no latent space")
        if isinstance(metric, OverTraining):
            code, inputs = (code, seen) if snapshots else ("", "no snapshots")
        found[metric.scope][metric.name] = keys.digest(code, inputs)
    return found


def measure_families(
    scope: Scope, subject: Subject, only: Collection[str] | None = None
) -> tuple[tuple[Measurement, ...], dict[str, str]]:
    """Every metric of a scope (or only those named) that can be taken of this subject, and why the others cannot."""
    measured: list[Measurement] = []
    skipped: dict[str, str] = {}
    for metric in catalogue.METRICS:
        if metric.scope != scope or (only is not None and metric.name not in only):
            continue
        reason = metric.unavailable(subject)
        if reason is None:
            measured += metric.measure(subject)
        else:
            skipped[metric.name] = reason
    return tuple(measured), skipped
