"""Mode collapse while it happens: classes found, their divergence and recall of the images drawn during training.

The images are compared with the validation split, so that whoever picks a budget by these curves has not looked at the
test split. The numbers are those of `modes`, `mode_kl`, `precision` and `recall`, of fewer images.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.data.likelihood import subset
from bench.metrics import features
from bench.metrics.base import Features, Subject
from bench.metrics.extraction import extract_all
from bench.metrics.images import Held
from bench.metrics.manifold import PRECISION_K, precision_recall
from bench.metrics.modes import class_counts, histogram_divergence
from bench.record import Better, Measurement, Scope

_BETTER: dict[str, Better] = {"modes": "higher", "mode_kl": "lower", "precision": "higher", "recall": "higher"}
_UNITS = {"mode_kl": "nats"}


class Look(NamedTuple):
    """What one set of images shows beside the validation split."""

    modes: int  # classes with an image
    mode_kl: float  # nats; infinite if a class has images and no real one
    precision: float
    recall: float


def look(*, real: Features, generated: Features) -> Look:
    """Both with logits, and more than `PRECISION_K` rows each."""
    assert real.logits is not None
    assert generated.logits is not None
    here, there = class_counts(generated.logits), class_counts(real.logits)
    pair = precision_recall(real=real.values, generated=generated.values)
    divergence = histogram_divergence(real=there, generated=here)
    return Look(int(np.count_nonzero(here)), divergence, pair.precision, pair.recall)


class OverTraining:
    """`modes_late`, `mode_kl_late`, `precision_late` and `recall_late` of the snapshots, and curves for the report."""

    name = "over_training"
    description = "Modes, their divergence, precision and recall of images drawn during training, against validation"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there are no curves; None if there are some."""
        if not subject.snapshots:
            return "no images were drawn during training (training.snapshots)"
        if subject.extractor is None:
            return subject.extractor_reason or "no feature extractor for these images"
        assert subject.dataset is not None
        fewest = min(len(subject.dataset.val), *map(len, subject.snapshots.values()))
        if fewest <= PRECISION_K:
            return f"needs more than {PRECISION_K} validation images and images a snapshot, got {fewest}"
        if _features(subject, subject.dataset.val.images[: PRECISION_K + 1], "validation images").logits is None:
            return f"extractor {subject.extractor.name} does not classify, so there are no classes"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Means over the snapshots of the second half; every snapshot's numbers go to `subject.over_training`."""
        dataset = subject.dataset
        assert dataset is not None
        real = _features(subject, dataset.val.images, "validation images")
        assert real.logits is not None
        seen, images = list(subject.snapshots), list(subject.snapshots.values())
        drawn = _features(subject, torch.cat(images), "images drawn during training")
        assert drawn.logits is not None
        ends = np.cumsum([len(x) for x in images])[:-1]
        parts = zip(np.split(drawn.values, ends), np.split(drawn.logits, ends), strict=True)
        looks = [look(real=real, generated=Features(values, logits)) for values, logits in parts]
        train = dataset.train.images[subset(len(dataset.train), len(images[0]))]
        floor = look(real=real, generated=_features(subject, train, "train images"))
        subject.over_training |= {
            "images": seen,
            "samples": len(images[0]),
            "n_real": len(dataset.val),
            "classes": int(real.logits.shape[1]),
            **{name: [_plain(getattr(one, name)) for one in looks] for name in Look._fields},
            "real": {name: _plain(getattr(floor, name)) for name in Look._fields},
        }
        late = looks[len(looks) // 2 :]
        found = [self._late(subject, name, [float(getattr(one, name)) for one in late], floor) for name in Look._fields]
        return tuple(measurement for measurement in found if measurement is not None)

    def _late(self, subject: Subject, name: str, values: list[float], floor: Look) -> Measurement | None:
        """The mean over the second half; None where it is infinite."""
        assert subject.extractor is not None
        assert subject.dataset is not None
        if not all(map(math.isfinite, values)):
            return None
        count = len(next(iter(subject.snapshots.values())))
        extractor = {"name": subject.extractor.name, **subject.extractor.identity()}
        return Measurement(
            metric=features.named(subject, f"{name}_late"),
            value=float(np.mean(values)),
            unit=_UNITS.get(name, ""),
            better=_BETTER[name],
            n=count,
            scope=self.scope,
            protocol={
                **subject.protocol,
                "checkpoint": "during training",
                "extractor": extractor,
                "split": "val",
                "n_real": len(subject.dataset.val),
                "n_generated": count,
                "snapshots": len(subject.snapshots),
                "version": self.version,
            },
            note=f"mean of {len(values)} snapshots in the second half of training, {min(values):.3g} to "
            f"{max(values):.3g}; as many train images read {getattr(floor, name):.3g}; no interval: neighbouring "
            "snapshots are alike",
        )


def _features(subject: Subject, images: Tensor, what: str) -> Features:
    assert subject.extractor is not None
    assert subject.dataset is not None
    return extract_all(subject.extractor, Held(images, subject.dataset.shape, what), subject.progress, subject.pool)


def _plain(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
