"""A shifted image against one with a part erased: which is nearer to the image, in pixels and in a space of codes.

A shift by a pixel changes hardly anything for the eye and much in pixels; a part that is missing changes what is seen,
and pixels little. A code that holds what is seen should turn the order round. The erased part is the square window of
at most half of the sides whose loss changes the image most among those that change it no more than the shift does, so
that in pixels the erased image is always the nearer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract import Encodes, Strip
from baselines.data.likelihood import subset, to_unit
from baselines.types import ImageShape
from bench.metrics.base import Array, Subject
from bench.record import Measurement, Scope
from bench.stats import Estimate, mean_over_images

IMAGES = 200  # of the test split at most, the same ones for every model
SHOWN = 6


@dataclass(frozen=True)
class Pairs:
    """Images with both changes, uint8 (N, C, H, W) each; those that neither can change are left out."""

    images: Tensor
    shifted: Tensor
    erased: Tensor


class Displacement:
    """`shift_over_erasure[pixels]` and `[codes]`: how much farther the shifted image lies than the erased one."""

    name = "shift_over_erasure"
    description = "Distance of an image shifted by a pixel over that of one with a part erased, in pixels and in codes"
    scope: Scope = "train"
    version = 1

    def unavailable(self, subject: Subject) -> str | None:
        """Why it cannot be taken; None if it can."""
        if not isinstance(subject.model, Encodes):
            return "the model makes no codes of images"
        if subject.dataset is None or min(subject.dataset.shape.chw[1:]) < 4:
            return "needs test images of at least 4x4 pixels"
        return None if len(self._pairs(subject).images) > 1 else "needs 2 test images that a shift changes"

    def measure(self, subject: Subject) -> tuple[Measurement, ...]:
        """Geometric means of the ratios over test images; a strip of the first of them goes to `subject.strips`."""
        model, data = subject.model, subject.dataset
        assert isinstance(model, Encodes)
        assert data is not None
        pairs = self._pairs(subject)
        with torch.no_grad():
            codes = [model.encode(x.to(subject.device)).cpu() for x in (pairs.images, pairs.shifted, pairs.erased)]
        levels = data.shape.levels
        pixels = [to_unit(x, levels, torch.float64) for x in (pairs.images, pairs.shifted, pairs.erased)]
        distances = {"pixels": _distances(*pixels), "codes": _distances(*codes)}
        subject.strips.append(strip(pairs, distances))
        protocol = {
            **subject.protocol,
            "split": "test",
            "n_real": len(pairs.images),
            "shift": "one pixel to the right",
            "erased": "the square window that comes nearest to the shift in pixels from below, at most half a side",
            "mean": "geometric",
            "version": self.version,
        }
        return tuple(self._ratio(space, shifted, erased, protocol) for space, (shifted, erased) in distances.items())

    def _ratio(self, space: str, shifted: Array, erased: Array, protocol: dict[str, object]) -> Measurement:
        ratios = np.log(np.maximum(shifted, 1e-12) / np.maximum(erased, 1e-12))
        mean = mean_over_images(ratios)
        assert mean.low is not None
        assert mean.high is not None
        nearer = float((shifted < erased).mean())
        return Measurement(
            metric=f"{self.name}[{space}]",
            value=math.exp(mean.value),
            unit="",
            better="none",
            n=mean.n,
            scope=self.scope,
            low=math.exp(mean.low),
            high=math.exp(mean.high),
            protocol=protocol,
            note=f"of {mean.n} test images the shifted one is nearer in {nearer:.0%}; normal interval of logarithms",
        )

    def _pairs(self, subject: Subject) -> Pairs:
        data = subject.dataset
        assert data is not None
        if "shifted and erased" not in subject.cache:
            images = data.test.images
            subject.cache["shifted and erased"] = changed(images[subset(len(images), IMAGES)], data.shape)
        found: Pairs = subject.cache["shifted and erased"]
        return found


def changed(images: Tensor, shape: ImageShape) -> Pairs:
    """Both changes of uint8 images (N, C, H, W); what is uncovered or erased gets the median level of the border."""
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 1:-1, 0], images[..., 1:-1, -1]], -1)
    ground = edge.median(-1).values[..., None, None].expand_as(images)
    shifted = torch.cat([ground[..., :1], images[..., :-1]], -1)
    unit = to_unit(images, shape.levels, torch.float64)
    limit = (to_unit(shifted, shape.levels, torch.float64) - unit).square().flatten(1).sum(1)
    cost = (to_unit(ground, shape.levels, torch.float64) - unit).square().sum(1)  # (N, H, W) of erasing each pixel
    masks, found = windows(cost, limit)
    erased = torch.where(masks[:, None], ground, images)
    kept = (limit > 0) & (found > 0)
    return Pairs(images[kept], shifted[kept], erased[kept])


def windows(cost: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """The square windows whose costs come nearest to a limit from below.

    Args:
        cost: (N, H, W), from 0 on.
        limit: (N,).

    Returns:
        Masks (N, H, W), true inside the window, of at most half of the smaller side, and the windows' costs (N,), which
        are 0 where no window costs anything within the limit.
    """
    n, height, width = cost.shape
    best, masks = torch.zeros(n, dtype=cost.dtype), torch.zeros(n, height, width, dtype=torch.bool)
    for side in range(1, min(height, width) // 2 + 1):
        sums = F.avg_pool2d(cost[:, None], side, stride=1, divisor_override=1)[:, 0]
        within = torch.where(sums <= limit[:, None, None], sums, -1).flatten(1)
        value, place = within.max(1)
        across = width - side + 1
        top, left = place // across, place % across
        rows, columns = torch.arange(height), torch.arange(width)
        inside = (rows >= top[:, None]) & (rows < top[:, None] + side)
        beside = (columns >= left[:, None]) & (columns < left[:, None] + side)
        better = value > best
        best = torch.where(better, value, best)
        masks = torch.where(better[:, None, None], inside[:, :, None] & beside[:, None, :], masks)
    return masks, best


def strip(pairs: Pairs, distances: dict[str, tuple[Array, Array]]) -> Strip:
    """The first images with both changes and their distances; means over all of them in the caption."""
    told = []
    for space, each in distances.items():
        shifted, erased = (_with_interval(mean_over_images(values)) for values in each)
        nearer = float((each[0] < each[1]).mean())
        told.append(f"in {space} {shifted} shifted and {erased} erased, the shifted one nearer in {nearer:.0%}")
    images = torch.stack([pairs.images, pairs.shifted, pairs.erased], 1)[:SHOWN]
    rows = tuple(
        ", ".join(f"{space} {a[i]:.2g} / {b[i]:.2g}" for space, (a, b) in distances.items()) for i in range(len(images))
    )
    caption = (
        "An image shifted by a pixel, and the same image with the square erased that comes nearest to it in pixels. "
        "Rows tell the distances from the image, shifted / erased. Mean distances with their 95 % intervals over "
        f"{len(pairs.images)} test images: {'; '.join(told)}. Distances in pixels and in codes have different units: "
        "what counts is which of the two changes lies farther."
    )
    return Strip("A shifted image against an erased one", caption, rows, ("image", "shifted", "erased"), images)


def _with_interval(mean: Estimate) -> str:
    return f"{mean.value:.3g} ({mean.low:.3g} – {mean.high:.3g})"


def _distances(image: Tensor, shifted: Tensor, erased: Tensor) -> tuple[Array, Array]:
    """Euclidean distances of each row from the image's, (N,) each."""
    found = [(x.double() - image.double()).flatten(1).norm(dim=1).numpy() for x in (shifted, erased)]
    return found[0], found[1]
