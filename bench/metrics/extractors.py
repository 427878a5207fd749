"""Which feature space images are compared in: a data set's own classifier, a published network, a user's, or pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.config import nearest
from baselines.data.likelihood import to_unit
from baselines.errors import UserError
from baselines.types import ImageShape
from bench.metrics import clip, dinov2
from bench.metrics.base import Extractor, Features
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.inception import InceptionExtractor, cached_weights
from bench.metrics.own_extractor import adopt, open_named
from bench.metrics.vgg16 import Vgg16Extractor

OWN_CLASSIFIER: Mapping[str, str] = {
    "digits": "digits-cnn",
    "mnist": "mnist-cnn",
    "mnist-static": "mnist-cnn",
    "mnist-dynamic": "mnist-cnn",
    "mnist-threshold": "mnist-cnn",
    "digits-large": "digits-large-cnn",
    "mnist-large": "mnist-large-cnn",
    "digits-puzzle": "digits-large-cnn",  # the same images
    "mnist-puzzle": "mnist-large-cnn",
    "digits-outline": "digits-outline-cnn",
    "mnist-outline": "mnist-outline-cnn",
    "digits-to-mnist": "digits-to-mnist-cnn",
    "digits-domains": "digits-domains-cnn",
    "mnist-domains": "mnist-domains-cnn",
    "digits-captioned": "digits-captioned-cnn",
    "mnist-captioned": "mnist-captioned-cnn",
}
INCEPTION, PIXELS = "inception", "pixels8x8"
NETWORKS: Mapping[str, Callable[[Path | None, str], Extractor]] = {
    INCEPTION: InceptionExtractor.open,
    "vgg16": Vgg16Extractor.open,
    **{variant.name: partial(clip.ClipExtractor.open, variant) for variant in clip.VARIANTS},
    **{variant.name: partial(dinov2.Dinov2Extractor.open, variant) for variant in dinov2.VARIANTS},
}
"""Published networks, each opened with weights from a file, from torch's cache or by download, on a device."""
_ALIASES = {"clip-vit-b-32": "clip", "dinov2-vit-l-14": "dinov2"}
_LEAST_SIDE = 32  # of images for which cached Inception weights are used unasked


class PixelExtractor:
    """`pixels8x8`: images area-averaged to at most 8x8 and scaled to [-1, 1]; what is left without a network."""

    name = PIXELS

    def identity(self) -> Mapping[str, Any]:
        """What makes its numbers comparable."""
        return {
            "resize": "area average to at most 8x8",
            "pixels": "[-1, 1]",
            "dtype": "float64",
            "version": 1,
        }

    def extract(self, images: Tensor, levels: int) -> Features:
        """Features (N, C * min(H, 8) * min(W, 8)) of uint8 images (N, C, H, W)."""
        size = min(images.shape[2], 8), min(images.shape[3], 8)
        parts = (to_unit(x, levels, torch.float64) for x in torch.split(images.cpu(), 1000))
        found = torch.cat([F.adaptive_avg_pool2d(x, size).flatten(1) for x in parts])
        return Features(np.asarray((2 * found - 1).numpy(), np.float64))


def names() -> tuple[str, ...]:
    """Every extractor that can be asked for."""
    return (*SPECS, *NETWORKS, *_ALIASES, PIXELS)


def own_extractor(given: Any, device: str = "cpu") -> Extractor:
    """The extractor of a torch module, or of any object with `name`, `identity` and `extract`, given from Python.

    Raises:
        UserError: if it is neither.
    """
    return adopt(given, names(), device)


def choose_extractor(
    dataset: str,
    shape: ImageShape,
    requested: str | None = None,
    weights: Path | None = None,
    device: str = "cpu",
) -> tuple[Extractor | None, str]:
    """The extractor for a data set's images, and why it is this one (or why there is none).

    Args:
        dataset: name of the data set.
        shape: of its images.
        requested: an extractor by name, or a user's as `module:VARIABLE` or `file.py:VARIABLE`; None leaves the
            choice to the rule: Inception if weights are given, the data set's own classifier if it has one, Inception
            if its weights lie in the cache and the images are 32 pixels or larger, else pixels.
        weights: of a published network (.pth or .safetensors).
        device: where networks run.

    Raises:
        UserError: if what is asked for does not exist, does not fit the images, or lacks its weights.
    """
    if requested is not None and ":" in requested:
        if weights is not None:
            raise UserError(f"extractor {requested}: takes no weights, got {weights}; load them where it is made")
        return open_named(requested, names(), device), "asked for"
    if requested is not None and requested not in names():
        raise UserError(f"extractor: unknown name {requested!r}{nearest(requested, names())}")
    requested = requested and _ALIASES.get(requested, requested)
    if weights is not None and requested is not None and requested not in NETWORKS:
        raise UserError(f"extractor {requested}: takes no weights, got {weights}; they are for {', '.join(NETWORKS)}")
    if shape.channels not in (1, 3):
        if requested is None:
            return PixelExtractor(), f"no network for images of {shape.channels} channels"
        if requested != PIXELS:
            raise UserError(f"extractor {requested}: expected images of 1 or 3 channels, got {shape.channels}")
    if weights is not None or requested in NETWORKS:
        return NETWORKS[requested or INCEPTION](weights, device), "asked for"
    if requested == PIXELS:
        return PixelExtractor(), "asked for"
    if requested is not None:
        return _classifier(requested, shape, device), "asked for"
    return _by_rule(dataset, shape, device)


def _by_rule(dataset: str, shape: ImageShape, device: str) -> tuple[Extractor, str]:
    if dataset in OWN_CLASSIFIER:
        return _classifier(OWN_CLASSIFIER[dataset], shape, device), f"the classifier of {dataset}"
    if min(shape.height, shape.width) >= _LEAST_SIDE and cached_weights().is_file():
        return InceptionExtractor.open(None, device), "its weights lie in the cache"
    return PixelExtractor(), f"{dataset} has no classifier of its own, and no Inception weights are given"


def _classifier(name: str, shape: ImageShape, device: str) -> ClassifierExtractor:
    spec = SPECS[name]
    if shape.chw != spec.chw:
        expected = " x ".join(map(str, spec.chw))
        raise UserError(f"extractor {name}: expected images of {expected}, got {' x '.join(map(str, shape.chw))}")
    return ClassifierExtractor(spec, device)
