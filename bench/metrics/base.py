"""What a metric is, and what it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from baselines.contract import GenerativeModel, Strip
from baselines.data.dataset import Dataset
from baselines.given import Requests
from baselines.types import Draw, Progress
from bench.metrics.images import ImageSet
from bench.record import Measurement, Scope

Array = NDArray[np.float64]


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


class Sharing(Protocol):
    """Extracts the parts of a set in several processes."""

    def parts(self, extractor: Extractor, images: ImageSet) -> Iterator[tuple[int, Features]]:
        """(first image, features of those from there), in any order, each image once."""
        ...


class Disk(Protocol):
    """Keeps features under the key of what made them."""

    def load(self, key: str) -> Features | None:
        """What was saved; None if nothing was, or it is damaged."""
        ...

    def save(self, key: str, features: Features) -> None:
        """Keep them."""
        ...


@dataclass
class Subject:
    """What is measured: a trained model's likelihood, or generated images beside the real ones that they face."""

    seed: int
    dataset: Dataset | None = None  # of the model's likelihood
    model: GenerativeModel | None = None
    draw: Draw | None = None  # how the generated images were drawn
    generated: ImageSet | None = None
    requests: Requests | None = (
        None  # of a conditional model: row i, cyclically, is what generated image i was made for
    )
    reference: ImageSet | None = None  # held-out real images
    train: ImageSet | None = None  # the real images that the generator learned from, where they are known
    extractor: Extractor | None = None
    extractor_reason: str = ""  # why there is no extractor
    device: str = "cpu"
    likelihood_images: int | None = None  # likelihoods of so many test images; None: of all
    likelihoods: tuple[str, ...] = ()  # asked for beside those that are always taken
    likelihood_curves: dict[str, Any] = field(default_factory=dict)  # found on the way, by likelihood; for an artifact
    maps: dict[str, Any] = field(default_factory=dict)  # found on the way, a number a pixel; for an artifact
    snapshots: Mapping[int, Tensor] = field(default_factory=dict)  # drawn during training, by images seen
    over_training: dict[str, Any] = field(default_factory=dict)  # found of these, for an artifact
    latent_map: dict[str, Any] = field(default_factory=dict)  # found on the way, where codes lie; for an artifact
    strips: list[Strip] = field(default_factory=list)  # found on the way, pictures of what was measured
    progress: Progress = lambda phase, done, total: None
    protocol: Mapping[str, Any] = field(default_factory=dict)  # what holds for all: ema, split, clip, ...
    cache: dict[str, Any] = field(default_factory=dict)  # features computed once and shared by the metrics
    disk: Disk | None = None  # and kept for later runs
    keeps_generated: bool = True  # there too: of no use where each set of samples is scored once
    pool: Sharing | None = None  # processes that extract features side by side


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
