"""How far two real-valued images are apart to a network: what path lengths are measured by.

Extractors see uint8 images. The step of a path length is far below a level, so here networks see pixels unrounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from baselines.errors import UserError
from bench.metrics.base import Extractor
from bench.metrics.classifier import SPECS, ClassifierExtractor
from bench.metrics.lpips import PUBLISHED, Lpips
from bench.metrics.vgg16 import Vgg16Extractor


class Perceptual(Protocol):
    """A squared distance of images."""

    name: str  # stands in the metric's name: ppl[digits-cnn]; LPIPS alone is called plain ppl

    def identity(self) -> Mapping[str, Any]:
        """Weights hash, resize, layers: all that makes its numbers comparable."""
        ...

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) of real-valued images (B, C, H, W) in [-1, 1]; 0 of equal ones, and quadratic in small changes."""
        ...


class FeatureDistance:
    """Squared Euclidean distance of the features of a data set's own classifier."""

    def __init__(self, extractor: ClassifierExtractor) -> None:
        self.name, self.extractor = extractor.name, extractor

    def identity(self) -> Mapping[str, Any]:
        """The classifier's, and what is done with it."""
        own = {"pixels": "real-valued, not rounded", "dtype": "float32"}
        return {**self.extractor.identity(), **own, "between_features": "squared Euclidean"}

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """(B,) float64 of images (B, 1, H, W).

        Raises:
            UserError: if the images have another shape than those that the classifier learnt from.
        """
        spec, net = self.extractor.spec, self.extractor.net
        expected = (1, spec.height, spec.width)
        if tuple(first.shape[1:]) != expected:
            raise UserError(f"extractor {self.name}: expected images {expected}, got {tuple(first.shape[1:])}")
        features = [net((x + 1) / 2)[0] * net.scale for x in (first, second)]
        difference: Tensor = (features[0] - features[1]).double()
        return difference.square().sum(1)


def perceptual(extractor: Extractor) -> tuple[Perceptual | None, str]:
    """The distance that goes with a run's extractor, or why there is none.

    A data set's own classifier gives its features' distance. VGG16 gives LPIPS, if the file of LPIPS' own weights lies
    in torch's cache: a run that was not asked for it downloads nothing.

    Raises:
        UserError: if that file is not what it should be.
    """
    if isinstance(extractor, ClassifierExtractor):
        return FeatureDistance(extractor), ""
    if isinstance(extractor, Vgg16Extractor):
        if PUBLISHED.cached().is_file():
            return Lpips(extractor, PUBLISHED.cached()), ""
        return None, f"needs the weights of LPIPS beside VGG16's: put {PUBLISHED.where()}"
    return None, (
        f"needs a distance of images that are not rounded, which the extractor {extractor.name} does not give; "
        f"{', '.join(SPECS)} and vgg16 (LPIPS) do"
    )
