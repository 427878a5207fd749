"""Features that the user has computed already: there are no images, and the extractor is what the user calls it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics.base import Array, Features, Subject
from bench.metrics.images import Chosen, ImageSet, Labels

DEFAULT_NAME = "features"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class FeatureRows:
    """A set of features, one row an image, that metrics handle as they do images: each row is d + K channels of 1x1."""

    def __init__(self, values: Array, logits: Array | None, what: str, split: str, declared: str | None = None) -> None:
        """values: (N, d); logits: (N, K); declared: the name of the extractor, where the file tells it."""
        self.d, self.classes = values.shape[1], 0 if logits is None else logits.shape[1]
        self.rows = torch.from_numpy(values if logits is None else np.concatenate([values, logits], 1))
        self.what, self.split, self.declared = what, split, declared
        self.shape = ImageShape(self.d + self.classes, 1, 1)
        self.labels: Labels | None = None
        self.stratified = False
        digest = hashlib.sha256(f"features {tuple(values.shape)} {self.classes}".encode())
        digest.update(self.rows.numpy().tobytes())
        self._digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.rows)

    def content(self) -> str:
        """SHA-256 of all numbers."""
        return self._digest

    def batches(self, size: int) -> Iterator[Tensor]:
        """float64 (B, d + K, 1, 1)."""
        yield from torch.split(self.rows[:, :, None, None], size)

    def part(self, first: int, last: int) -> FeatureRows:
        """These rows alone."""
        rows = self.rows[first:last].numpy()
        return FeatureRows(rows[:, : self.d], rows[:, self.d :] if self.classes else None, self.what, self.split)


class ReadyExtractor:
    """Takes features for what they are; its name is what the user says they are."""

    def __init__(self, name: str, d: int) -> None:
        self.name, self.d = name, d

    def identity(self) -> Mapping[str, Any]:
        """The name is all that is known."""
        return {"given": "features computed elsewhere, under the name that they were given", "d": self.d, "version": 1}

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features (N, d) and logits (N, K) of rows (N, d + K, 1, 1)."""
        rows = np.asarray(images.flatten(1).numpy(), np.float64)
        return Features(rows[:, : self.d], rows[:, self.d :] if rows.shape[1] > self.d else None)


def ready_extractor(sets: Sequence[ImageSet], name: str | None = None) -> ReadyExtractor | None:
    """The extractor that ready-made features are said to be of; None where all sets are images.

    Args:
        sets: samples, real and perhaps train images.
        name: of the extractor; the files' own word by default, else `features`.

    Raises:
        UserError: if some are images and some features, or they are of different extractors.
    """
    rows = [found for found in sets if isinstance(found, FeatureRows)]
    if not rows:
        if name is not None:
            raise UserError("extractor name: it names ready-made features, and images are given; see --extractor")
        return None
    if len(rows) < len(sets):
        others = ", ".join(found.what for found in sets if not isinstance(found, FeatureRows))
        raise UserError(
            f"expected features throughout, as in {rows[0].split} of the {rows[0].what}, but the {others} are given as "
            "images; give all as images or all as features"
        )
    for kind, numbers in (("features", [r.d for r in rows]), ("logits", [r.classes for r in rows])):
        if len(set(numbers)) > 1:
            told = ", ".join(f"{number} of the {found.what}" for number, found in zip(numbers, rows, strict=True))
            raise UserError(f"{kind}: expected equally many in each set, got {told}")
    declared = {told for told in (name, *(found.declared for found in rows)) if told is not None}
    if len(declared) > 1:
        raise UserError(f"features: expected those of one extractor, got {' and '.join(sorted(declared))}")
    called = next(iter(declared), DEFAULT_NAME)
    if not _NAME.fullmatch(called):
        raise UserError(f"extractor name: expected letters, digits, dots and hyphens, got {called!r}")
    return ReadyExtractor(called, rows[0].d)


def has_pixels(images: ImageSet) -> bool:
    """Whether there are images behind a set, and not features alone."""
    return not isinstance(images.base if isinstance(images, Chosen) else images, FeatureRows)


def without_pixels(subject: Subject) -> str | None:
    """Why a metric of pixels cannot be taken; None if it can."""
    if all(has_pixels(images) for images in (subject.generated, subject.reference) if images is not None):
        return None
    return "it is taken of pixels, and ready-made features are given"
