"""What a metric is, and what it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from baselines.contract import GenerativeModel
from baselines.data.dataset import Dataset
from bench.record import Measurement, Scope

Array = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""progress(phase, done, total), in images or whatever the phase counts."""


@dataclass(frozen=True)
class Features:
    """An extractor's view of N images."""

    values: Array  # (N, d)
    logits: Array | None = None  # (N, classes), where the extractor classifies


class Extractor(Protocol):
    """A fixed network (or formula) in whose features images are compared."""

    name: str  # stands in the metric's name: fd[digits-cnn]

    def identity(self) -> Mapping[str, Any]:
        """Weights hash, resize, dtype, accuracy: all that makes its numbers comparable."""
        ...

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features of uint8 images (N, C, H, W) with levels 0 .. levels - 1, computed in batches."""
        ...


@dataclass
class Subject:
    """What is measured: a trained model, or its samples by one draw, and the real images they face."""

    dataset: Dataset
    seed: int
    model: GenerativeModel | None = None
    samples: Tensor | None = None  # uint8 (N, C, H, W), with scope draw
    extractor: Extractor | None = None
    extractor_reason: str = ""  # why there is no extractor
    device: str = "cpu"
    likelihood_images: int | None = None  # likelihoods of so many test images; None: of all
    progress: Progress = lambda phase, done, total: None
    protocol: Mapping[str, Any] = field(default_factory=dict)  # what holds for all: ema, split, clip, ...
    cache: dict[str, Any] = field(default_factory=dict)  # features computed once and shared by the metrics


class Metric(Protocol):
    """One family of numbers, such as fd or bits_per_dim."""

    name: str
    scope: Scope
    version: int  # raised when its numbers change their meaning

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken of this subject; None if it can."""
        ...

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """The numbers."""
        ...
