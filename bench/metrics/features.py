"""Features of test images and samples, computed once per content, and what all feature metrics say alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor

from baselines.noise import derive_seed
from bench.metrics.base import Array, Extractor, Features, Subject
from bench.stats import Strata

T = TypeVar("T")


def missing(subject: Subject, least: int, logits: bool = False) -> str | None:
    """Why a metric of features cannot be taken: no extractor, no samples, too few images, no class logits.

    Args:
        subject: what is to be measured.
        least: the fewest images that the metric needs in either set.
        logits: whether the metric needs an extractor that classifies.
    """
    if subject.extractor is None:
        return subject.extractor_reason or "no feature extractor for these images"
    if subject.samples is None:
        return "no samples were drawn"
    for count, what in ((len(subject.samples), "samples"), (len(subject.dataset.test), "test images")):
        if count < least:
            return f"needs at least {least} {what}, got {count}"
    if logits and of_samples(subject).logits is None:
        return f"extractor {subject.extractor.name} does not classify, so there are no class probabilities"
    return None


def of_test(subject: Subject) -> Features:
    """Features of the test split, the reference of every feature metric."""
    return _extracted(subject, subject.dataset.test.images, "features of the test split")


def of_samples(subject: Subject) -> Features:
    """Features of the samples."""
    assert subject.samples is not None
    return _extracted(subject, subject.samples, "features of the samples")


def _extracted(subject: Subject, images: Tensor, phase: str) -> Features:
    extractor, levels = subject.extractor, subject.dataset.shape.levels
    assert extractor is not None
    # by content, so that one cache may serve many draws and cannot answer for other images or weights
    key = f"features {_fingerprint(extractor)} {_content(subject, images)} {levels}"
    if key not in subject.cache:
        subject.progress(phase, 0, len(images))
        found = extractor.extract(images, levels)
        for values in (found.values, found.logits):
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"extractor {extractor.name}: {phase} are not finite")
        subject.cache[key] = found
        subject.progress(phase, len(images), len(images))
    return cast(Features, subject.cache[key])


def _content(subject: Subject, images: Tensor) -> str:
    """SHA-256 of the images, computed once per tensor object that a subject holds."""
    key = f"content {id(images)} {images._version}"  # the version counts changes in place
    held = subject.cache.get(key)
    if held is None or held[0] is not images:
        pixels = images.detach().cpu().contiguous().numpy()
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        subject.cache[key] = held = (images, digest)
    return cast(str, held[1])


def _fingerprint(extractor: Extractor) -> str:
    identity = json.dumps({"name": extractor.name, **extractor.identity()}, sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def cached(subject: Subject, what: str, make: Callable[[], T]) -> T:
    """What two metrics of the same features share, computed once."""
    assert subject.extractor is not None
    assert subject.samples is not None
    content = (_content(subject, subject.samples), _content(subject, subject.dataset.test.images))
    key = f"{what} {subject.seed} {subject.dataset.shape.levels} {_fingerprint(subject.extractor)} {' '.join(content)}"
    if key not in subject.cache:
        subject.cache[key] = make()
    return cast(T, subject.cache[key])


def is_inception(subject: Subject) -> bool:
    """Whether the numbers may bear the names that the literature gives to Inception's features."""
    return subject.extractor is not None and subject.extractor.name == "inception"


def named(subject: Subject, name: str) -> str:
    """`kid[digits-cnn]`."""
    assert subject.extractor is not None
    return f"{name}[{subject.extractor.name}]"


def protocol(subject: Subject, version: int, **settings: Any) -> Mapping[str, Any]:
    """All that must be equal before two numbers of one metric may be compared."""
    assert subject.extractor is not None
    assert subject.samples is not None
    return {
        **subject.protocol,
        "split": "test",
        "n_real": len(subject.dataset.test),
        "n_generated": len(subject.samples),
        "extractor": {"name": subject.extractor.name, **subject.extractor.identity()},
        **settings,
        "version": version,
    }


def generator(subject: Subject, purpose: str) -> np.random.Generator:
    """Random numbers for resampling that depend on the cell's seed and the purpose alone."""
    return np.random.default_rng(derive_seed(subject.seed, purpose))


def strata(subject: Subject) -> Strata | None:
    """The classes of the test split: their shares are the split's own, and not resampled."""
    labels = subject.dataset.test.labels
    return None if labels is None else Strata.of(labels.cpu().numpy())


def fixed_shares(subject: Subject) -> Array | None:
    """The test images' classes, where the split gave each class its share; None where they fell as they did."""
    labels = subject.dataset.test.labels
    return None if labels is None or not subject.dataset.stratified else np.asarray(labels.cpu().numpy())


def ratio(real: Array, generated: Array) -> float:
    """The smaller N/d of the two sets."""
    return min(len(real), len(generated)) / int(real.shape[1])


def ratio_note(real: Array, generated: Array) -> str:
    """`N/d = 22.5 generated, 5.6 real`, which says how far sampling bias reaches."""
    d = real.shape[1]
    return f"N/d = {len(generated) / d:.3g} generated, {len(real) / d:.3g} real"
