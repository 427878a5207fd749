"""The Fréchet distance at each size that a model draws images in, after the multi-scale scores of Karras et al. 2018.

arXiv:1710.10196, section 5: samples and real images are alike where they are alike at every scale. Here both sets are
brought to one size, the samples by the model itself and the test images by averaging blocks, and both are then
enlarged to the size that the extractor takes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import HasResolutions, Noise
from baselines.noise import derive_seed
from baselines.types import ImageShape
from bench.metrics import features
from bench.metrics.base import Subject
from bench.metrics.frechet import Frechet, frechet_distance
from bench.metrics.images import Held, ImageSet
from bench.record import Measurement, Scope

_BATCH = 250

Size = tuple[int, int]


class FrechetByResolution:
    """`fd_by_resolution[EXTRACTOR HxW]` for each size, each with the interval of `fd`."""

    name = "fd_by_resolution"
    description = "Fréchet distance to test images at each size that a model draws, both enlarged to the extractor's"
    scope: Scope = "draw"
    version = 1

    def __init__(self, replicates: int = 200) -> None:
        self.distance = Frechet(replicates)

    def unavailable(self, subject: Subject) -> str | None:
        """Why there are no distances; None if there are."""
        if not isinstance(subject.model, HasResolutions):
            return "the model draws images of one size"
        return features.missing(subject, least=2)

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """A number for each size, from the smallest on."""
        model = subject.model
        assert isinstance(model, HasResolutions)
        assert subject.generated is not None
        assert subject.reference is not None
        told = []
        for resolution, size in enumerate(model.resolutions):
            subject.progress("sizes", resolution, len(model.resolutions))
            samples = _drawn(model, subject, resolution)
            told.append(self._at(subject, size, Held(samples, subject.generated.shape, "samples")))
        return tuple(told)

    def _at(self, subject: Subject, size: Size, samples: Held) -> Measurement:
        assert subject.reference is not None
        test, train = at_size(subject.reference, size), None
        if subject.train is not None and len(subject.train) > 1:
            train = at_size(subject.train.part(0, min(len(subject.train), len(samples))), size)
        found = self.distance.measure(replace(subject, generated=samples, reference=test, keeps_generated=False))[0]
        note = found.note
        if train is not None:
            real = features.of(subject, test).values
            floor = frechet_distance(real=real, generated=features.of(subject, train).values)
            note = f"{len(train)} train images have {floor:.3g}; {note}"
        assert subject.extractor is not None
        protocol = {**found.protocol, "size": list(size), "enlarged": "bilinear", "version": self.version}
        metric = f"{self.name}[{subject.extractor.name} {size[0]}x{size[1]}]"
        return replace(found, metric=metric, protocol=protocol, note=note)


def _drawn(model: HasResolutions, subject: Subject, resolution: int) -> Tensor:
    """As many images as were drawn of the whole size, of this size and then enlarged, from the same noise."""
    assert subject.generated is not None
    n, shape = len(subject.generated), subject.generated.shape
    noise = Noise(derive_seed(subject.seed, "sample"), device=subject.device)
    parts = []
    with torch.no_grad():
        for first in range(0, n, _BATCH):
            part = model.sample_at(resolution, min(_BATCH, n - first), noise.at(first)).cpu()
            parts.append(enlarged(part, shape))
    return torch.cat(parts)


def at_size(images: ImageSet, size: Size) -> Held:
    """A set of images brought to a size and back: means of blocks, rounded to levels, then enlarged."""
    parts = [enlarged(_reduced(batch.cpu(), size), images.shape) for batch in images.batches(_BATCH)]
    held = Held(torch.cat(parts), images.shape, images.what, images.split, images.labels)
    held.stratified = images.stratified
    return held


def _reduced(images: Tensor, size: Size) -> Tensor:
    """uint8 (N, C, H, W) to uint8 (N, C, *size): the mean of each block, rounded."""
    return F.adaptive_avg_pool2d(images.double(), size).round().to(torch.uint8)


def enlarged(images: Tensor, shape: ImageShape) -> Tensor:
    """uint8 (N, C, h, w) to uint8 (N, C, H, W): bilinear with half-pixel centres, rounded; of that size unchanged."""
    size = shape.height, shape.width
    return F.interpolate(images.double(), size=size, mode="bilinear", align_corners=False).round().to(torch.uint8)
