"""Sharpness: the gradient energy of samples over that of real images, so that blur is a number.

The energy is the Tenengrad family's simplest member (Pertuz et al. 2013, Pattern Recognition 46(5), gradient-based
focus measures): the mean squared finite difference of neighbouring pixels, in x plus in y.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from baselines.data.likelihood import to_unit
from bench.metrics import features
from bench.metrics.base import Array, Subject
from bench.metrics.images import ImageSet
from bench.metrics.ready_features import without_pixels
from bench.record import Measurement, Scope
from bench.stats import normal_interval

_PIXELS = 2**22  # values held at a time, 32 MB of float64


class Ratio(NamedTuple):
    """Of two means, and the standard error of its logarithm (0 where the ratio is 0)."""

    value: float
    log_error: float


def gradient_energies(images: Tensor, levels: int) -> Array:
    """(N,) mean of (difference in x)^2 + mean of (difference in y)^2, pixels in [0, 1], of uint8 (N, C, H, W)."""
    x = to_unit(images.cpu(), levels, torch.float64).numpy()
    found = np.zeros(len(x))
    for axis in (2, 3):
        if x.shape[axis] > 1:
            found += (np.diff(x, axis=axis) ** 2).mean((1, 2, 3))
    return found


def energy_ratio(*, real: Array, generated: Array, classes: ArrayLike | None = None) -> Ratio:
    """Mean of the samples' energies (M,) over that of the real images' (N,), with the delta method's error.

    classes: (N,), where the real images were drawn class by class in fixed shares; what classes differ by is then no
    part of the error.

    Raises:
        ValueError: with fewer than two of either, or where the real mean is 0.
    """
    if min(len(real), len(generated)) < 2 or not real.mean() > 0:
        raise ValueError(f"energy ratio: expected two of each and a real mean above 0, got {len(real)} real")
    value = float(generated.mean() / real.mean())
    if value == 0:
        return Ratio(0.0, 0.0)
    labels = np.zeros(len(real)) if classes is None else np.asarray(classes)
    variance = float(generated.var(ddof=1)) / len(generated) / float(generated.mean()) ** 2
    for label in np.unique(labels):
        own = real[labels == label]
        # a class of one image tells no spread of its own: it is taken to spread as all do
        spread = float((own if len(own) > 1 else real).var(ddof=1))
        variance += len(own) * spread / float(real.sum()) ** 2
    return Ratio(value, math.sqrt(variance))


class Sharpness:
    """`sharpness`: below 1 the samples are blurrier than the real images, above 1 noisier."""

    name = "sharpness"
    description = "Gradient energy of the samples over the real images': below 1 is blurrier, above 1 noisier"
    scope: Scope = "draw"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why there is no ratio; None if there is one."""
        reason = features.missing_images(subject, least=2) or without_pixels(subject)
        if reason is not None:
            return reason
        generated, real = subject.generated, subject.reference
        assert generated is not None
        assert real is not None
        if generated.shape.chw != real.shape.chw:
            sizes = [" x ".join(map(str, images.shape.chw)) for images in (generated, real)]
            return f"needs images of one size, got {generated.what} of {sizes[0]} and {real.what} of {sizes[1]}"
        if not _energies(subject, real).any():
            return f"the {real.what} have no gradients"
        return None

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """One number from 0 on."""
        assert subject.generated is not None
        assert subject.reference is not None
        real, generated = _energies(subject, subject.reference), _energies(subject, subject.generated)
        value, error = energy_ratio(real=real, generated=generated, classes=features.fixed_shares(subject))
        low: float | None = None
        high: float | None = None
        note = "no interval: the samples have no gradients"
        if value > 0:
            low, high = map(math.exp, normal_interval(math.log(value), error))
            note = "normal interval of the logarithm over independent images"
        return (
            Measurement(
                metric=self.name,
                value=value,
                unit="",
                better="none",
                n=len(generated),
                scope=self.scope,
                low=low,
                high=high,
                protocol=features.protocol_of_images(
                    subject, self.version, pixels="level / (levels - 1)", energy="mean dx^2 + mean dy^2"
                ),
                note=f"1 is as sharp as the real images; {note}",
            ),
        )


def _energies(subject: Subject, images: ImageSet) -> Array:
    """Of a set of images, computed once per content."""
    key = f"gradient energies {images.content()}"
    if key not in subject.cache:
        batch = max(1, _PIXELS // math.prod(images.shape.chw))
        parts = [gradient_energies(x, images.shape.levels) for x in images.batches(batch)]
        subject.cache[key] = np.concatenate(parts)
    found: Array = subject.cache[key]
    return found
