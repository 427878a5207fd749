"""Features of real and generated images, computed once per content, and what all feature metrics say alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

import numpy as np

from baselines.noise import derive_seed
from bench.metrics.base import Array, Extractor, Features, Subject
from bench.metrics.extraction import extract_all
from bench.metrics.images import ImageSet, Labels
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
    reason = missing_images(subject, least)
    if reason is not None:
        return reason
    if logits and of_samples(subject).logits is None:
        return f"extractor {subject.extractor.name} does not classify, so there are no class probabilities"
    return None


def missing_images(subject: Subject, least: int) -> str | None:
    """Why a metric that needs no features cannot be taken: no samples, or fewer than `least` images in either set."""
    if subject.generated is None:
        return "no samples were drawn"
    assert subject.reference is not None
    for images in (subject.generated, subject.reference):
        if len(images) < least:
            return f"needs at least {least} {images.what}, got {len(images)}"
    return None


def of_test(subject: Subject) -> Features:
    """Features of the real images, the reference of every feature metric."""
    assert subject.reference is not None
    return of(subject, subject.reference)


def of_samples(subject: Subject) -> Features:
    """Features of the generated images."""
    assert subject.generated is not None
    return of(subject, subject.generated)


def of(subject: Subject, images: ImageSet) -> Features:
    """Features of a set of images, computed once per content.

    Raises:
        ValueError: if the extractor gives NaN or infinite features.
    """
    extractor = subject.extractor
    assert extractor is not None
    # by content, so that one cache may serve many draws and cannot answer for other images or weights
    key = f"features {_fingerprint(extractor)} {images.content()}"
    if key not in subject.cache:
        kept = None if subject.disk is None else subject.disk.load(key)
        subject.cache[key] = found = kept or extract_all(extractor, images, subject.progress, subject.pool)
        if kept is None and subject.disk is not None and (subject.keeps_generated or images is not subject.generated):
            with suppress(OSError):  # it only saves time: a full disk is no reason to stop
                subject.disk.save(key, found)
    return cast(Features, subject.cache[key])


def _fingerprint(extractor: Extractor) -> str:
    identity = json.dumps({"name": extractor.name, **extractor.identity()}, sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def cached(subject: Subject, what: str, make: Callable[[], T]) -> T:
    """What two metrics of the same features share, computed once."""
    assert subject.extractor is not None
    assert subject.generated is not None
    assert subject.reference is not None
    content = f"{subject.generated.content()} {subject.reference.content()}"
    key = f"{what} {subject.seed} {_fingerprint(subject.extractor)} {content}"
    if key not in subject.cache:
        subject.cache[key] = make()
    return cast(T, subject.cache[key])


def is_inception(subject: Subject) -> bool:
    """Whether the numbers may bear the names that the literature gives to Inception's features."""
    return is_own(subject, "inception")


def is_own(subject: Subject, name: str) -> bool:
    """Whether the features are of our extractor of this name.

    Features that were computed elsewhere are not, whatever they are called: their weights are not known.
    """
    extractor = subject.extractor
    return extractor is not None and extractor.name == name and "weights_sha256" in extractor.identity()


def named(subject: Subject, name: str) -> str:
    """`kid[digits-cnn]`."""
    assert subject.extractor is not None
    return f"{name}[{subject.extractor.name}]"


def protocol(subject: Subject, version: int, **settings: Any) -> Mapping[str, Any]:
    """All that must be equal before two numbers of one metric may be compared."""
    assert subject.extractor is not None
    extractor = {"name": subject.extractor.name, **subject.extractor.identity()}
    return protocol_of_images(subject, version, extractor=extractor, **settings)


def protocol_of_images(subject: Subject, version: int, **settings: Any) -> Mapping[str, Any]:
    """The same of a metric that needs no features."""
    assert subject.generated is not None
    assert subject.reference is not None
    return {
        **subject.protocol,
        "split": subject.reference.split,
        "n_real": len(subject.reference),
        "n_generated": len(subject.generated),
        **settings,
        "version": version,
    }


def generator(subject: Subject, purpose: str) -> np.random.Generator:
    """Random numbers for resampling that depend on the cell's seed and the purpose alone."""
    return np.random.default_rng(derive_seed(subject.seed, purpose))


def strata(subject: Subject) -> Strata | None:
    """The classes of the real images: their shares are the split's own, and not resampled."""
    assert subject.reference is not None
    labels = subject.reference.labels
    return None if labels is None else Strata.of(labels)


def fixed_shares(subject: Subject) -> Labels | None:
    """The real images' classes, where the split gave each class its share; None where they fell as they did."""
    assert subject.reference is not None
    return subject.reference.labels if subject.reference.stratified else None


def ratio(real: Array, generated: Array) -> float:
    """The smaller N/d of the two sets."""
    return min(len(real), len(generated)) / int(real.shape[1])


def ratio_note(real: Array, generated: Array) -> str:
    """`N/d = 22.5 generated, 5.6 real`, which says how far sampling bias reaches."""
    d = real.shape[1]
    return f"N/d = {len(generated) / d:.3g} generated, {len(real) / d:.3g} real"
