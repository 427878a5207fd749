"""Independent pixels: one histogram of levels for each pixel, smoothed after Laplace (1814).

What a model knows that treats an image as unrelated pixels. P(level) = (count + a) / (N + a levels) with one a > 0
for all pixels, chosen where the left-out likelihood of each training image, given all the others, is largest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.contract import (
    Draw,
    Fits,
    GenerativeModel,
    Given,
    HasLikelihood,
    ImageShape,
    Model,
    Nats,
    Noise,
)
from baselines.errors import UserError
from baselines.types import Kind

_GRID = 61  # candidates for a, evenly spaced in its logarithm
_SMALLEST, _LARGEST = 1e-3, 1e3


@dataclass(frozen=True)
class Config:
    """How much is added to each count."""

    smoothing: float | None = None  # a; None: chosen by the left-out likelihood

    def __post_init__(self) -> None:
        if self.smoothing is not None and not self.smoothing > 0:
            raise UserError(f"histogram.smoothing: expected a positive number or null, got {self.smoothing}")


class Histogram(GenerativeModel, Fits, HasLikelihood):
    """P(x) as a product over pixels of categorical distributions."""

    likelihoods: ClassVar[Mapping[str, Kind]] = {"exact": "exact"}
    probability: Tensor  # (C, H, W, levels)

    def __init__(self, shape: ImageShape, config: Config) -> None:
        super().__init__()
        self.shape = shape
        self.config = config
        uniform = torch.full((*shape.chw, shape.levels), 1 / shape.levels, dtype=torch.float64)
        self.register_buffer("probability", uniform)

    def fit(self, images: Tensor, noise: Noise) -> None:
        """Count the levels of each pixel; nothing here is random."""
        counts = level_counts(images, self.shape.levels)
        smoothing = best_smoothing(counts) if self.config.smoothing is None else self.config.smoothing
        self.probability.copy_((counts + smoothing) / (len(images) + smoothing * self.shape.levels))

    def nats(self, x: Tensor, name: str, noise: Noise) -> Nats:
        """The exact -log P(x), with its map over pixels."""
        table = self.probability.log().expand(len(x), -1, -1, -1, -1)
        map_ = -table.gather(-1, x.long()[..., None])[..., 0]
        return Nats(map_.flatten(1).sum(1), maps={"pixel": map_})

    def sample(self, n: int, draw: Draw, noise: Noise, given: Given | None = None) -> Tensor:
        """Each pixel on its own, by inversion of its distribution function."""
        self.check_draw(None, draw)
        below = self.probability.cumsum(-1)[..., :-1].contiguous()  # P(level <= 0), ..., P(level <= levels - 2)
        u = noise.uniform("pixels", n, self.shape.chw).to(below.dtype).movedim(0, -1).contiguous()
        return torch.searchsorted(below, u, right=True).movedim(-1, 0).to(torch.uint8)


def level_counts(images: Tensor, levels: int) -> Tensor:
    """How often each pixel takes each level: float64 (C, H, W, levels) of uint8 (N, C, H, W)."""
    pixels = math.prod(images.shape[1:])
    cells = torch.arange(pixels, device=images.device) * levels  # where each pixel's counts begin
    counts = torch.zeros(pixels * levels, dtype=torch.int64, device=images.device)
    for chunk in torch.split(images, 1024):
        counts += torch.bincount((chunk.flatten(1).long() + cells).flatten(), minlength=len(counts))
    return counts.view(*images.shape[1:], levels).to(torch.float64)


def left_out_log_likelihood(counts: Tensor, smoothing: float) -> float:
    """Sum over images and pixels of log P(pixel) under the histogram of all other images."""
    n, levels = float(counts.flatten(0, -2)[0].sum()), counts.shape[-1]
    log_p = torch.log((counts - 1).clamp(min=0) + smoothing) - torch.log(counts.new_tensor(n - 1 + smoothing * levels))
    return float((counts * log_p).sum())


def best_smoothing(counts: Tensor) -> float:
    """The candidate with the largest left-out likelihood."""
    candidates: list[float] = torch.logspace(
        math.log10(_SMALLEST), math.log10(_LARGEST), _GRID, dtype=torch.float64
    ).tolist()
    return max(candidates, key=lambda smoothing: left_out_log_likelihood(counts, smoothing))


MODEL = Model("Independent pixels", "Laplace 1814, Essai philosophique sur les probabilités", Config, Histogram)
